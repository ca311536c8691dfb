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
};

/* Asked of the context where it is needed: kept, both would be read for every packet of an open gate. */
static __always_inline __u32 packet_ifindex(const struct packet *pkt)
{
	return pkt->is_xdp ? ((struct xdp_md *)pkt->ctx)->ingress_ifindex
			   : ((struct __sk_buff *)pkt->ctx)->ifindex;
}

/* EtherType, network byte order, of a frame without an Ethernet header. */
static __always_inline __be16 packet_protocol(const struct packet *pkt)
{
	return pkt->is_xdp ? 0 : ((struct __sk_buff *)pkt->ctx)->protocol;
}

/* No header that we look for can start beyond this; keeps the verifier's offsets small. */
#define PACKET_OFFSET_MAX 0x7ff

/*
 * Whether XDP reads the packet itself, which is faster. Without CAP_PERFMON the verifier lets nobody add a
 * variable to a packet pointer: then the helper copies (Linux 5.18).
 */
const volatile bool xdp_reads_directly = true;

/* Copies len bytes at off; false if the frame is shorter. len is a compile-time constant. */
static __always_inline bool packet_load(const struct packet *pkt, __u32 off, void *to, __u32 len)
{
	if (off > PACKET_OFFSET_MAX)
		return false;
	if (!pkt->is_xdp)
		return bpf_skb_load_bytes(pkt->ctx, off, to, len) == 0;

	if (!xdp_reads_directly)
		return bpf_xdp_load_bytes(pkt->ctx, off, to, len) == 0;

	struct xdp_md *xdp = pkt->ctx;
	void *from = (void *)(long)xdp->data + off;

	if (from + len > (void *)(long)xdp->data_end)
		return false;
	__builtin_memcpy(to, from, len);
	return true;
}

/*
 * Whether the len bytes at off, both constants, can be read in place; then *head is where. No null pointer
 * says that they cannot: without CAP_PERFMON the verifier lets nobody compare a packet pointer with 0.
 */
static __always_inline bool packet_head(const struct packet *pkt, __u32 off, __u32 len, void **head)
{
	void *end;

	if (pkt->is_xdp) {
		struct xdp_md *xdp = pkt->ctx;

		*head = (void *)(long)xdp->data + off;
		end = (void *)(long)xdp->data_end;
	} else {
		struct __sk_buff *skb = pkt->ctx;

		*head = (void *)(long)skb->data + off;
		end = (void *)(long)skb->data_end;
	}
	return *head + len <= end;
}

/* The headers before a length field of 16 bits, and what that can say; rounded up to a mask. */
#define PACKET_END_MAX 0x1ffff

/*
 * Whether the frame has its first `end` bytes, at most PACKET_END_MAX. XDP compares pointers: without
 * CAP_PERFMON the verifier lets nobody subtract them. The length is read anew each time: the verifier would
 * follow each path on with what it has learned of a length on its way.
 */
static __always_inline bool packet_reaches(const struct packet *pkt, __u32 end)
{
	if (!pkt->is_xdp)
		return end <= ((volatile struct __sk_buff *)pkt->ctx)->len;
	if (!xdp_reads_directly)
		return end <= bpf_xdp_get_buff_len(pkt->ctx);

	struct xdp_md *xdp = pkt->ctx;
	__u64 bytes = end;

	/* Unchanged: no length field says more. The verifier of Linux 6.1 takes swapped bytes for any number,
	 * and lets nobody add that. */
	asm volatile("%0 &= %1" : "+r"(bytes) : "i"(PACKET_END_MAX));
	return (void *)(long)xdp->data + bytes <= (void *)(long)xdp->data_end;
}

/* Bytes in the frame. XDP: Linux 5.18, as everything that parking needs. */
static __always_inline __u64 packet_len(const struct packet *pkt)
{
	return pkt->is_xdp ? bpf_xdp_get_buff_len(pkt->ctx) : ((struct __sk_buff *)pkt->ctx)->len;
}

/* Copies the first len bytes of the frame; len is a variable, 1 to the size of `to`. */
static __always_inline bool packet_copy(const struct packet *pkt, void *to, __u64 len)
{
	if (pkt->is_xdp)
		return bpf_xdp_load_bytes(pkt->ctx, 0, to, len) == 0;
	return bpf_skb_load_bytes(pkt->ctx, 0, to, len) == 0;
}

#endif
