// SPDX-License-Identifier: GPL-2.0-only
/*
 * Steering: an sk_lookup program that chooses the listening socket of a new connection, and one
 * that puts listening sockets where it can choose them. It never drops: what it does not steer goes
 * by the kernel's own rules.
 */
#include <vmlinux.h>
#include <syngate/abi.h>
#include "count.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <stdbool.h>

#define AF_INET 2
#define NEXT_TCP 6
#define SK_PASS 1

#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024
#define BPF_SK_LOOKUP_F_NO_REUSEPORT 2
#define BPF_F_CURRENT_NETNS (-1L)

/* A socket whose slot is empty has been closed; the next ones are tried, as many as this. */
#define SLOTS_TRIED 16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syngate_steer);
} steer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct syngate_steer_key);
	__type(value, struct syngate_steer_rule);
} steer_rules SEC(".maps");

/* The value is the socket's cookie where user space or bpftool reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, SYNGATE_STEER_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

#define COUNT(name, ...) COUNT_CASE(SYNGATE_STEER_REASON_##name, name)
COUNTERS(steer_verdicts, struct syngate_steer_verdicts, SYNGATE_STEER_REASONS(COUNT))
#undef COUNT

struct lookup {
	bool ipv4;
	bool own;
	__u32 port;
	__u32 address[4]; /* local, IPv4 as ::ffff:a.b.c.d */
	__u32 hash;
};

/*
 * Reads the context with constant offsets only, which the verifier wants and a compiler that merges
 * branches spoils: each field once, whatever the family; the other family's are 0.
 */
static __always_inline void read_lookup(struct bpf_sk_lookup *ctx, struct lookup *lookup)
{
	volatile struct bpf_sk_lookup *from = ctx;
	__u32 ip4 = from->local_ip4, first = from->local_ip6[0], second = from->local_ip6[1],
	      third = from->local_ip6[2], fourth = from->local_ip6[3];
	__u32 first_remote = from->remote_ip6[0];
	__u32 remote = from->remote_ip4 ^ first_remote ^ from->remote_ip6[1] ^ from->remote_ip6[2] ^
		       from->remote_ip6[3];

	lookup->ipv4 = from->family == AF_INET;
	lookup->own = from->remote_ip4 == bpf_htonl(SYNGATE_LOOKUP_IPV4) ||
		      (first_remote & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	lookup->port = from->local_port;
	lookup->address[0] = first;
	lookup->address[1] = second;
	lookup->address[2] = lookup->ipv4 ? bpf_htonl(0xffff) : third;
	lookup->address[3] = lookup->ipv4 ? ip4 : fourth;

	/* Neighbouring ports of one client must not share a socket: murmur3's last steps. */
	__u32 h = remote ^ lookup->address[3] ^ ((__u32)from->remote_port << 16 | lookup->port);

	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	lookup->hash = h ^ h >> 16;
}

/* The rule for exactly this address, else the one for every address. */
static __always_inline struct syngate_steer_rule *find_rule(const struct lookup *lookup, __u32 generation)
{
	struct syngate_steer_key key = {.generation = generation, .port = lookup->port};
	struct syngate_steer_rule *rule;

	__builtin_memcpy(key.address, lookup->address, sizeof(key.address));
	rule = bpf_map_lookup_elem(&steer_rules, &key);
	if (rule)
		return rule;
	__builtin_memset(key.address, 0, sizeof(key.address));
	if (lookup->ipv4)
		key.address[10] = key.address[11] = 0xff;
	return bpf_map_lookup_elem(&steer_rules, &key);
}

/* Assigns one of the rule's sockets, or none when all that are tried have been closed. */
static __always_inline int assign(struct bpf_sk_lookup *ctx, const struct syngate_steer_rule *rule,
				  __u32 hash)
{
	__u32 sockets_count = rule->sockets, first = rule->first_slot, chosen;

	if (!sockets_count)
		return SYNGATE_STEER_REASON_exempt;
	chosen = hash % sockets_count;
	for (__u32 tried = 0; tried < SLOTS_TRIED; tried++) {
		if (tried == sockets_count)
			break;
		__u32 slot = first + (chosen + tried) % sockets_count;
		struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &slot);

		if (!sk)
			continue;

		long refused = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);

		bpf_sk_release(sk);
		return refused ? SYNGATE_STEER_REASON_refused : SYNGATE_STEER_REASON_steered;
	}
	return SYNGATE_STEER_REASON_no_listener;
}

static __always_inline int decide(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	struct syngate_steer *word = bpf_map_lookup_elem(&steer, &zero);

	if (!word)
		return SYNGATE_STEER_REASON_idle;

	__u32 generation = *(volatile __u32 *)&word->active;
	if (!generation)
		return SYNGATE_STEER_REASON_idle;
	if (ctx->protocol != NEXT_TCP)
		return SYNGATE_STEER_REASON_not_tcp;
	if (ctx->sk)
		return SYNGATE_STEER_REASON_selected_before;

	struct lookup lookup;
	read_lookup(ctx, &lookup);
	if (lookup.own)
		return SYNGATE_STEER_REASON_own_lookup;

	struct syngate_steer_rule *rule = find_rule(&lookup, generation);
	if (!rule)
		return SYNGATE_STEER_REASON_no_rule;

	int reason = assign(ctx, rule, lookup.hash);
	if (reason == SYNGATE_STEER_REASON_steered)
		COUNT_SHARED(rule, steered);
	else if (reason == SYNGATE_STEER_REASON_no_listener)
		COUNT_SHARED(rule, no_listener);
	return reason;
}

SEC("sk_lookup")
int syngate_steer(struct bpf_sk_lookup *ctx)
{
	count(decide(ctx));
	return SK_PASS;
}

/*
 * Never attached: the agent runs it on a packet that holds a struct syngate_capture behind a link-layer
 * header. Stores the listening socket that a SYN with these addresses and ports would find by the kernel's
 * own rules. Returns 0 when there is none, 1 when it is stored, or a negative errno.
 */
SEC("tc")
int syngate_capture(struct __sk_buff *skb)
{
	struct syngate_capture want;
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;

	if (bpf_skb_load_bytes(skb, SYNGATE_CAPTURE_OFFSET, &want, sizeof(want)))
		return -22; /* EINVAL */

	__u32 slot = want.slot;

	if (want.ipv6) {
		__builtin_memset(tuple.ipv6.saddr, 0, sizeof(tuple.ipv6.saddr));
		tuple.ipv6.saddr[0] = bpf_htonl(0xff000000);
		__builtin_memcpy(tuple.ipv6.daddr, want.address, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = bpf_htons(want.source_port);
		tuple.ipv6.dport = bpf_htons(want.port);
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	} else {
		tuple.ipv4.saddr = bpf_htonl(SYNGATE_LOOKUP_IPV4);
		__builtin_memcpy(&tuple.ipv4.daddr, want.address, sizeof(tuple.ipv4.daddr));
		tuple.ipv4.sport = bpf_htons(want.source_port);
		tuple.ipv4.dport = bpf_htons(want.port);
		sk = bpf_sk_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return 0;

	long error = bpf_map_update_elem(&sockets, &slot, sk, 0);

	bpf_sk_release(sk);
	return error ? error : 1;
}

char LICENSE[] SEC("license") = "GPL";
