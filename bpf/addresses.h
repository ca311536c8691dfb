/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which addresses are this host's, and which foreign ones are intercepted: the maps that the gate owns and
 * other programs share, and the questions that are asked of them.
 */
#ifndef SYNGATE_ADDRESSES_H
#define SYNGATE_ADDRESSES_H

#include <vmlinux.h>
#include <syngate/abi.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#define BPF_F_NO_PREALLOC 1

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct syngate_prefix);
	__type(value, __u32);
} local_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SYNGATE_INTERCEPTS_MAX);
	__type(key, struct syngate_intercept_key);
	__type(value, struct syngate_intercept);
} intercepts SEC(".maps");

/* enum syngate_local, or 0: of nobody here. address: 16 bytes, IPv4 as ::ffff:a.b.c.d. */
static __always_inline __u32 where_local(const __u8 *address)
{
	struct syngate_prefix key = {.prefix_len = 128};
	const __u32 *where;

	__builtin_memcpy(key.address, address, sizeof(key.address));
	where = bpf_map_lookup_elem(&local_addresses, &key);
	return where ? *where : 0;
}

/* Local whatever interface a packet for it comes by. */
static __always_inline bool is_own_address(const __u8 *address)
{
	return where_local(address) == SYNGATE_LOCAL_HERE;
}

/* The rule for connections to this address and port (host byte order), longest prefix first, or 0. The
 * caller knows that the address is none of this host's, nor of one of its VRFs. */
static __always_inline const struct syngate_intercept *intercept_of(const __u8 *address, __u16 port)
{
	struct syngate_intercept_key key = {.prefix_len = 16 + 128, .port = port};

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&intercepts, &key);
}

#endif
