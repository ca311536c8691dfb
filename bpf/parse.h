/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From the first byte of a frame to its TCP header, one function a header. Each returns 0 and moves
 * the cursor, or the reason for which the frame is none of ours.
 */
#ifndef SYNGATE_PARSE_H
#define SYNGATE_PARSE_H

#include "packet.h"
#include <syngate/abi.h>
#include <bpf/bpf_endian.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88A8

#define ETH_HEADER 14 /* bytes */
#define VLAN_TAGS_MAX 2
/* As many as the kernel's own ip6_tcp stack sees in practice; more is counted as malformed. */
#define EXTENSION_HEADERS_MAX 8

enum {
	NEXT_HOP = 0,
	NEXT_TCP = 6,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_AH = 51,
	NEXT_DEST = 60,
	NEXT_MOBILITY = 135
};

/* Parsing goes on. Reasons are 0 and up, so this is none of them. */
#define PARSED (-1)

struct cursor {
	__u32 end;       /* where the datagram ends, by its own length field; padding may follow */
	__u32 off;       /* bytes from the frame's first */
	__u8 next;       /* IP protocol number of what stands at off */
	__be16 protocol; /* EtherType of what stands at off */
} __attribute__((aligned(8)));

/*
 * Has the verifier forget where the cursor stands. It would follow each number of VLAN tags through all that
 * comes, which takes it three times as long: it remembers a constant that is stored on the stack only in the
 * first half of eight bytes.
 */
static __always_inline void forget_offset(struct cursor *cur)
{
	_Static_assert(__builtin_offsetof(struct cursor, off) % 8 == 4, "the second half");
	asm volatile("" : "+m"(cur->off));
}

/* The fields that are decided by. IPv4 addresses as ::ffff:a.b.c.d. */
struct syn {
	bool ipv6;
	bool fragment;        /* the first of several */
	bool tagged;          /* a VLAN's: for the program on its own device, if there is one */
	__u8 source[16];      /* network byte order */
	__u8 destination[16]; /* network byte order */
	__be16 source_port;
	__be16 destination_port;
	__u16 ip_len; /* bytes, IP header included */
};

#define VLAN_ID 0x0fff

/* The tag that the device took out names a VLAN; 0 is a mere priority. */
static __always_inline bool has_vlan_device(const struct __sk_buff *skb)
{
	return skb->vlan_present && (skb->vlan_tci & VLAN_ID);
}

struct vlan_tag {
	__be16 tci;
	__be16 protocol;
};

static __always_inline int parse_link(const struct packet *pkt, struct cursor *cur)
{
	if (!pkt->ethernet) {
		cur->off = 0;
		cur->protocol = packet_protocol(pkt);
		return PARSED;
	}
	if (!packet_load(pkt, 12, &cur->protocol, sizeof(cur->protocol)))
		return SYNGATE_REASON_truncated;
	cur->off = ETH_HEADER;

#pragma unroll
	for (int i = 0; i < VLAN_TAGS_MAX; i++) {
		struct vlan_tag tag;

		if (cur->protocol != bpf_htons(ETH_P_8021Q) && cur->protocol != bpf_htons(ETH_P_8021AD))
			break;
		if (!packet_load(pkt, cur->off, &tag, sizeof(tag)))
			return SYNGATE_REASON_truncated;
		cur->protocol = tag.protocol;
		cur->off += sizeof(tag);
	}
	forget_offset(cur);
	return PARSED;
}

static __always_inline void map_ipv4(__u8 *to, __be32 address)
{
	__builtin_memset(to, 0, 10);
	__builtin_memset(to + 10, 0xff, 2);
	__builtin_memcpy(to + 12, &address, 4);
}

static __always_inline int parse_ipv4(const struct packet *pkt, struct cursor *cur, struct syn *syn)
{
	struct iphdr ip;

	if (!packet_load(pkt, cur->off, &ip, sizeof(ip)))
		return SYNGATE_REASON_truncated;
	if (ip.version != 4 || ip.ihl < 5 || bpf_ntohs(ip.tot_len) < ip.ihl * 4)
		return SYNGATE_REASON_malformed;
	if (ip.protocol != NEXT_TCP)
		return SYNGATE_REASON_not_tcp;
	if (ip.frag_off & bpf_htons(0x1fff))
		return SYNGATE_REASON_later_fragment;
	cur->end = cur->off + bpf_ntohs(ip.tot_len);
	if (!packet_reaches(pkt, cur->end))
		return SYNGATE_REASON_truncated;

	syn->ipv6 = false;
	syn->fragment = ip.frag_off & bpf_htons(0x2000);
	syn->ip_len = bpf_ntohs(ip.tot_len);
	map_ipv4(syn->source, ip.saddr);
	map_ipv4(syn->destination, ip.daddr);
	cur->off += ip.ihl * 4;
	return PARSED;
}

static __always_inline bool is_extension(__u8 next)
{
	return next == NEXT_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT || next == NEXT_AH ||
	       next == NEXT_DEST || next == NEXT_MOBILITY;
}

/* One extension header; cur->next says which. */
static __always_inline int parse_extension(const struct packet *pkt, struct cursor *cur, struct syn *syn)
{
	struct {
		__u8 next;
		__u8 length;
		__u8 routing_type;
		__u8 segments_left;
	} ext;

	if (!is_extension(cur->next)) /* nothing need follow, as behind "no next header" */
		return SYNGATE_REASON_not_tcp;
	if (!packet_load(pkt, cur->off, &ext, sizeof(ext)))
		return SYNGATE_REASON_truncated;

	switch (cur->next) {
	case NEXT_FRAGMENT: {
		struct frag_hdr frag;

		if (!packet_load(pkt, cur->off, &frag, sizeof(frag)))
			return SYNGATE_REASON_truncated;
		if (frag.frag_off & bpf_htons(0xfff8))
			return SYNGATE_REASON_later_fragment;
		syn->fragment |= frag.frag_off & bpf_htons(1);
		cur->off += sizeof(frag);
		break;
	}
	case NEXT_AH:
		cur->off += (ext.length + 2) * 4;
		break;
	case NEXT_ROUTING:
		if (ext.segments_left) /* this host is only a stop on its way */
			return SYNGATE_REASON_not_local;
		cur->off += (ext.length + 1) * 8;
		break;
	default:
		cur->off += (ext.length + 1) * 8;
	}
	cur->next = ext.next;
	return PARSED;
}

static __always_inline int parse_ipv6(const struct packet *pkt, struct cursor *cur, struct syn *syn)
{
	struct ipv6hdr ip6;

	if (!packet_load(pkt, cur->off, &ip6, sizeof(ip6)))
		return SYNGATE_REASON_truncated;
	if (ip6.version != 6)
		return SYNGATE_REASON_malformed;
	cur->end = cur->off + sizeof(ip6) + bpf_ntohs(ip6.payload_len);
	if (!packet_reaches(pkt, cur->end))
		return SYNGATE_REASON_truncated;

	syn->ipv6 = true;
	syn->fragment = false;
	syn->ip_len = bpf_ntohs(ip6.payload_len) + sizeof(ip6);
	__builtin_memcpy(syn->source, &ip6.saddr, 16);
	__builtin_memcpy(syn->destination, &ip6.daddr, 16);
	cur->off += sizeof(ip6);
	cur->next = ip6.nexthdr;

#pragma unroll
	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		if (cur->next == NEXT_TCP)
			return PARSED;
		int reason = parse_extension(pkt, cur, syn);
		if (reason != PARSED)
			return reason;
	}
	return cur->next == NEXT_TCP ? PARSED : SYNGATE_REASON_malformed;
}

static __always_inline int parse_tcp(const struct packet *pkt, const struct cursor *cur, struct syn *syn)
{
	struct tcphdr tcp;

	if (!packet_load(pkt, cur->off, &tcp, sizeof(tcp)))
		return SYNGATE_REASON_truncated;
	if (tcp.doff < 5)
		return SYNGATE_REASON_malformed;
	if (!tcp.syn || tcp.ack)
		return SYNGATE_REASON_not_syn;
	/* Bytes behind the datagram's end are padding: what looks like a header there is none. */
	if (cur->off + tcp.doff * 4 > cur->end)
		return SYNGATE_REASON_truncated;
	syn->source_port = tcp.source;
	syn->destination_port = tcp.dest;
	return PARSED;
}

struct plain_ipv4 {
	struct iphdr ip;
	struct tcphdr tcp;
};

struct plain_ipv6 {
	struct ipv6hdr ip;
	struct tcphdr tcp;
};

/* Whether there is TCP at `link`, a constant, to be read in place: no options, no fragment. */
static __always_inline bool plain_ipv4_at(const struct packet *pkt, __u32 link, struct plain_ipv4 **head)
{
	return packet_head(pkt, link, sizeof(**head), (void **)head) && *(__u8 *)&(*head)->ip == 0x45 &&
	       (*head)->ip.protocol == NEXT_TCP && !((*head)->ip.frag_off & bpf_htons(0x3fff));
}

/* The same without extension headers. */
static __always_inline bool plain_ipv6_at(const struct packet *pkt, __u32 link, struct plain_ipv6 **head)
{
	return packet_head(pkt, link, sizeof(**head), (void **)head) && (*head)->ip.version == 6 &&
	       (*head)->ip.nexthdr == NEXT_TCP;
}

/* From the link layer's header, behind which the cursor stands, to the TCP header. */
static __always_inline int parse_ip(const struct packet *pkt, struct cursor *cur, struct syn *syn)
{
	if (cur->protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(pkt, cur, syn);
	if (cur->protocol == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(pkt, cur, syn);
	return SYNGATE_REASON_not_ip;
}

/* PARSED and a filled syn, or the reason to pass. */
static __always_inline int parse_syn(const struct packet *pkt, struct syn *syn)
{
	struct cursor cur = {};
	int reason = parse_link(pkt, &cur);

	syn->tagged = pkt->ethernet && cur.off != ETH_HEADER;
	if (reason == PARSED)
		reason = parse_ip(pkt, &cur, syn);
	if (reason == PARSED)
		reason = parse_tcp(pkt, &cur, syn);
	return reason;
}

#endif
