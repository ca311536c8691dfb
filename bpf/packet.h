/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A frame as either hook sees it, so that parsing and verdicts are written once. `is_xdp` is a
 * constant in each program: after inlining only one side of each branch is left.
 */
#ifndef SYNGATE_PACKET_H
#define SYNGATE_PACKET_H

#include <vmlinux.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

struct packet {
	void *ctx;
	bool is_xdp;
	bool ethernet; /* begins with an Ethernet header */
	__u32 len;     /* bytes, from the first byte that the hook sees */
	__u32 ifindex;
	__be16 protocol; /* EtherType, for frames without an Ethernet header */
};

/* No header that we look for can start beyond this; keeps the verifier's offsets small. */
#define PACKET_OFFSET_MAX 0x7ff

/* Copies len bytes at off; false if the frame is shorter. len is a compile-time constant. */
static __always_inline bool packet_load(const struct packet *pkt, __u32 off, void *to, __u32 len)
{
	if (off > PACKET_OFFSET_MAX)
		return false;
	if (!pkt->is_xdp)
		return bpf_skb_load_bytes(pkt->ctx, off, to, len) == 0;

	struct xdp_md *xdp = pkt->ctx;
	void *from = (void *)(long)xdp->data + off;

	if (from + len > (void *)(long)xdp->data_end)
		return false;
	__builtin_memcpy(to, from, len);
	return true;
}

/* Copies the first len bytes of the frame; len is a variable, 1 to the size of `to`. */
static __always_inline bool packet_copy(const struct packet *pkt, void *to, __u64 len)
{
	if (pkt->is_xdp)
		return bpf_xdp_load_bytes(pkt->ctx, 0, to, len) == 0;
	return bpf_skb_load_bytes(pkt->ctx, 0, to, len) == 0;
}

#endif
