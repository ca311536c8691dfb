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
	__u64 closed_at_ns; /* of the gate, when it was dropped */
	__u64 jiffies;      /* 0: none was, the kernel's never are */
	__u64 to[2];        /* IPv4: [0] as endpoints_of(); IPv6: the destination */
	__u32 ifindex;
	__be16 protocol; /* EtherType */
	__be16 port;     /* IPv6 */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct last_dropped);
} last_dropped SEC(".maps");

#define TCP_FLAGS_SYN 0x02
#define TCP_FLAGS_ACK 0x10

/* TCP's header length from its byte 12, in bytes: the upper half counts words of four. */
static __always_inline __u32 tcp_header(__u8 offset_byte)
{
	return (offset_byte >> 2) & 0x3c;
}

/* A SYN without ACK whose header is whole: the datagram, of ip_len bytes, has it after ip_header bytes. */
static __always_inline bool is_syn(const __u8 *tcp, __u32 ip_header, __u32 ip_len)
{
	__u32 header = tcp_header(tcp[12]);

	return (tcp[13] & (TCP_FLAGS_SYN | TCP_FLAGS_ACK)) == TCP_FLAGS_SYN &&
	       header >= sizeof(struct tcphdr) && ip_header + header <= ip_len;
}

/* As they follow one another in the frame: the IPv4 destination, the source port (left out), the port. */
static __always_inline __u64 endpoints_of(const __be32 *destination)
{
	return *(const __u64 *)destination & bpf_cpu_to_be64(0xffffffff0000ffff);
}

static __always_inline bool is_plain_ipv4_to(const struct packet *pkt, __u32 link,
					     const struct last_dropped *last)
{
	struct plain_ipv4 *head;
	__u32 ip_len;

	if (!plain_ipv4_at(pkt, link, &head) || endpoints_of(&head->ip.daddr) != last->to[0])
		return false;
	ip_len = bpf_ntohs(head->ip.tot_len);
	return is_syn((const __u8 *)&head->tcp, sizeof(head->ip), ip_len) &&
	       packet_reaches(pkt, link + ip_len);
}

static __always_inline bool is_plain_ipv6_to(const struct packet *pkt, __u32 link,
					     const struct last_dropped *last)
{
	struct plain_ipv6 *head;
	__u64 destination[2];
	__u32 ip_len;

	if (!plain_ipv6_at(pkt, link, &head))
		return false;
	__builtin_memcpy(destination, &head->ip.daddr, sizeof(destination));
	ip_len = sizeof(head->ip) + bpf_ntohs(head->ip.payload_len);
	return head->tcp.dest == last->port && last->to[0] == destination[0] &&
	       last->to[1] == destination[1] && is_syn((const __u8 *)&head->tcp, sizeof(head->ip), ip_len) &&
	       packet_reaches(pkt, link + ip_len);
}

/* Whether the frame is a SYN like the one that this CPU dropped last, a moment ago. */
static __always_inline bool is_like_last_dropped(const struct packet *pkt, const struct syngate_gate *g)
{
	__u32 zero = 0, link = pkt->ethernet ? ETH_HEADER : 0;
	const struct last_dropped *last = bpf_map_lookup_elem(&last_dropped, &zero);
	struct ethhdr *ethernet;

	if (!last || last->closed_at_ns != g->closed_at_ns || last->jiffies != bpf_jiffies64() ||
	    last->ifindex != packet_ifindex(pkt))
		return false;
	/* No shorter than a SYN by IPv4, of which everything is then known to be there. */
	if (!packet_head(pkt, 0, link + sizeof(struct iphdr) + sizeof(struct tcphdr), (void **)&ethernet) ||
	    (pkt->ethernet ? ethernet->h_proto : packet_protocol(pkt)) != last->protocol)
		return false;
	return last->protocol == bpf_htons(ETH_P_IP) ? is_plain_ipv4_to(pkt, link, last)
						     : is_plain_ipv6_to(pkt, link, last);
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
	last->ifindex = packet_ifindex(pkt);
	last->port = syn->destination_port;
	if (syn->ipv6) {
		last->protocol = bpf_htons(ETH_P_IPV6);
		__builtin_memcpy(last->to, syn->destination, sizeof(last->to));
	} else {
		struct {
			__u8 address[4];
			__be16 none;
			__be16 port;
		} endpoints = {.port = syn->destination_port};

		__builtin_memcpy(endpoints.address, syn->destination + 12, sizeof(endpoints.address));
		last->protocol = bpf_htons(ETH_P_IP);
		__builtin_memcpy(&last->to[0], &endpoints, sizeof(endpoints));
	}
}

#endif
