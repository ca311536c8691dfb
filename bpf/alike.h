/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The SYNs of a flood are alike. Which one a CPU dropped last is remembered, and the next to the same
 * address and port is dropped without asking the maps and the routing tables, or reading the clock, again.
 * What is remembered holds for one jiffy (1 to 10 ms), for one closing of the gate, and only where the
 * routing policy does not ask who sends (syngate_gate.local_first).
 *
 * Only plain headers are recognised: no VLAN tag in the frame, no IP options, no extension header, no
 * fragment. Whatever else comes takes the long way, and so does all that is not dropped.
 */
#ifndef SYNGATE_ALIKE_H
#define SYNGATE_ALIKE_H

#include "parse.h"

/*
 * A lease that ends sooner is read from the clock at each SYN: jiffies stand still while the CPU that
 * counts them is held up.
 */
#define ALIKE_LEASE_MIN_NS 100000000

struct last_dropped {
	__u64 closed_at_ns; /* of the gate, when it was dropped; 0: none was */
	__u64 jiffies;
	__u64 destination[2]; /* as in struct syn */
	__u32 ifindex;
	__be16 port;
	__u16 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct last_dropped);
} last_dropped SEC(".maps");

/* A SYN without ACK whose header, and the datagram, are whole. end: where the datagram ends in the frame. */
static __always_inline bool is_whole_syn(const struct packet *pkt, const struct tcphdr *tcp, __u32 tcp_len,
					 __u32 end)
{
	return tcp->syn && !tcp->ack && tcp->doff >= 5 && tcp->doff * 4 <= tcp_len &&
	       packet_reaches(pkt, end);
}

static __always_inline bool is_plain_ipv4_to(const struct packet *pkt, __u32 link,
					     const struct last_dropped *last)
{
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} * head;
	__u16 ip_len;

	if (!packet_head(pkt, link, sizeof(*head), (void **)&head) || *(__u8 *)&head->ip != 0x45 ||
	    head->ip.protocol != NEXT_TCP || head->ip.frag_off & bpf_htons(0x3fff))
		return false;
	ip_len = bpf_ntohs(head->ip.tot_len);
	return head->tcp.dest == last->port && last->destination[0] == 0 &&
	       last->destination[1] == (bpf_htonl(0xffff) | (__u64)head->ip.daddr << 32) &&
	       ip_len >= sizeof(head->ip) &&
	       is_whole_syn(pkt, &head->tcp, ip_len - sizeof(head->ip), link + ip_len);
}

static __always_inline bool is_plain_ipv6_to(const struct packet *pkt, __u32 link,
					     const struct last_dropped *last)
{
	struct {
		struct ipv6hdr ip;
		struct tcphdr tcp;
	} * head;
	__u64 destination[2];
	__u16 tcp_len;

	if (!packet_head(pkt, link, sizeof(*head), (void **)&head) || head->ip.version != 6 ||
	    head->ip.nexthdr != NEXT_TCP)
		return false;
	__builtin_memcpy(destination, &head->ip.daddr, sizeof(destination));
	tcp_len = bpf_ntohs(head->ip.payload_len);
	return head->tcp.dest == last->port && last->destination[0] == destination[0] &&
	       last->destination[1] == destination[1] &&
	       is_whole_syn(pkt, &head->tcp, tcp_len, link + sizeof(head->ip) + tcp_len);
}

/* Whether the frame is a SYN like the one that this CPU dropped last, a moment ago. */
static __always_inline bool is_like_last_dropped(const struct packet *pkt, const struct syngate_gate *g)
{
	__u32 zero = 0, link = pkt->ethernet ? ETH_HEADER : 0;
	const struct last_dropped *last = bpf_map_lookup_elem(&last_dropped, &zero);
	__be16 protocol = pkt->protocol;

	if (!last || last->closed_at_ns != g->closed_at_ns || last->jiffies != bpf_jiffies64() ||
	    last->ifindex != pkt->ifindex || !g->closed_at_ns)
		return false;
	if (pkt->ethernet) {
		struct ethhdr *ethernet;

		if (!packet_head(pkt, 0, sizeof(*ethernet), (void **)&ethernet))
			return false;
		protocol = ethernet->h_proto;
	}
	if (protocol == bpf_htons(ETH_P_IP))
		return is_plain_ipv4_to(pkt, link, last);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return is_plain_ipv6_to(pkt, link, last);
	return false;
}

static __always_inline void remember_dropped(const struct packet *pkt, const struct syngate_gate *g,
					     const struct syn *syn, __u64 lease_left_ns)
{
	__u32 zero = 0;
	struct last_dropped *last = bpf_map_lookup_elem(&last_dropped, &zero);

	if (!last || !g->local_first || lease_left_ns < ALIKE_LEASE_MIN_NS)
		return;
	last->closed_at_ns = g->closed_at_ns;
	last->jiffies = bpf_jiffies64();
	__builtin_memcpy(last->destination, syn->destination, sizeof(last->destination));
	last->ifindex = pkt->ifindex;
	last->port = syn->destination_port;
}

#endif
