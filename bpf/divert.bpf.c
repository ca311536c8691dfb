// SPDX-License-Identifier: GPL-2.0-only
/*
 * Transparent proxying: marks what must be routed to this host though its destination is foreign. A policy
 * rule on the mark does the rest, and after the first packets of a connection the kernel's early demux does
 * without it. Nothing is assigned here: why not is in docs/adr/0007.
 */
#include "addresses.h"
#include "packet.h"
#include "parse.h"
#include <bpf/bpf_core_read.h>

#define TC_NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the next program decides */
#define PACKET_OTHERHOST 3
#define VLAN_ID 0x0fff
#define CURRENT_NETNS (-1L)

enum { STATE_TIME_WAIT = 6, STATE_LISTEN = 10, STATE_NEW_SYN_RECV = 12 };

/* skb->mark becomes (skb->mark & ~mask) | mark. */
const volatile __u32 mark = 0;
const volatile __u32 mask = 0;
/* There are rules in `intercepts`. */
const volatile bool intercepting = false;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syngate_divert_verdicts);
} divert_verdicts SEC(".maps");

/* Only the members that are read; CO-RE finds them by name in the running kernel. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct inet_sock {
	unsigned long inet_flags;
};

struct inet_sock___before_6_6 {
	__u8 transparent : 1;
};

struct inet_timewait_sock {
	unsigned int tw_transparent : 1;
};

#pragma clang attribute pop

#define INET_FLAGS_TRANSPARENT 15 /* of an unnamed enumeration in the kernel's net/inet_sock.h */

/*
 * As the kernel's own inet_sk_transparent(). sk comes from a lookup and is still held. A half-open connection
 * to a foreign address is here only because a transparent listener took it.
 */
static __always_inline bool is_transparent(struct bpf_sock *sk, __u32 state)
{
	if (state == STATE_NEW_SYN_RECV)
		return true;
	if (state == STATE_TIME_WAIT) {
		struct inet_timewait_sock *wait = (void *)bpf_skc_to_tcp_timewait_sock(sk);

		return !wait || BPF_CORE_READ_BITFIELD(wait, tw_transparent);
	}
	void *full = bpf_skc_to_tcp_sock(sk);

	if (!full)
		return false;
	if (bpf_core_field_exists(((struct inet_sock *)0)->inet_flags))
		return ((struct inet_sock *)full)->inet_flags >> INET_FLAGS_TRANSPARENT & 1;

	struct inet_sock___before_6_6 *old = full;

	return BPF_CORE_READ_BITFIELD(old, transparent);
}

static __always_inline void count(__u32 reason)
{
	__u32 zero = 0;
	__u64 *counters = bpf_map_lookup_elem(&divert_verdicts, &zero);

	if (counters && reason < SYNGATE_DIVERT_COUNT)
		counters[reason]++;
}

/* The parser speaks of the gate's reasons. */
static __always_inline int unparsed(int reason)
{
	switch (reason) {
	case SYNGATE_REASON_not_ip:
		return SYNGATE_DIVERT_not_ip;
	case SYNGATE_REASON_not_tcp:
		return SYNGATE_DIVERT_not_tcp;
	case SYNGATE_REASON_later_fragment:
		return SYNGATE_DIVERT_fragment;
	case SYNGATE_REASON_truncated:
		return SYNGATE_DIVERT_truncated;
	case SYNGATE_REASON_not_local:
		return SYNGATE_DIVERT_source_routed;
	default:
		return SYNGATE_DIVERT_malformed;
	}
}

static __always_inline struct bpf_sock *lookup(struct __sk_buff *skb, const struct syn *syn)
{
	struct bpf_sock_tuple tuple = {};

	if (syn->ipv6) {
		__builtin_memcpy(tuple.ipv6.saddr, syn->source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, syn->destination, 16);
		tuple.ipv6.sport = syn->source_port;
		tuple.ipv6.dport = syn->destination_port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), CURRENT_NETNS, 0);
	}
	__builtin_memcpy(&tuple.ipv4.saddr, syn->source + 12, 4);
	__builtin_memcpy(&tuple.ipv4.daddr, syn->destination + 12, 4);
	tuple.ipv4.sport = syn->source_port;
	tuple.ipv4.dport = syn->destination_port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), CURRENT_NETNS, 0);
}

/* Whether the packet answers a SYN cookie of this listener: then no other trace of the connection is here. */
static __always_inline bool answers_cookie(struct packet *pkt, struct bpf_sock *listener,
					   const struct syn *syn, __u32 ip_off, struct tcphdr *tcp)
{
	if (syn->ipv6) {
		struct ipv6hdr ip6;

		return packet_load(pkt, ip_off, &ip6, sizeof(ip6)) &&
		       bpf_tcp_check_syncookie(listener, &ip6, sizeof(ip6), tcp, sizeof(*tcp)) == 0;
	}
	struct iphdr ip;

	return packet_load(pkt, ip_off, &ip, sizeof(ip)) &&
	       bpf_tcp_check_syncookie(listener, &ip, sizeof(ip), tcp, sizeof(*tcp)) == 0;
}

/* No connection of this host has this packet; sk, which may be 0, listens. The lookup has asked the steering
 * program, so the listener is the very one that the stack will find. */
static __always_inline int intercept(struct packet *pkt, struct bpf_sock *sk, const struct syn *syn,
				     __u32 ip_off, struct tcphdr *tcp)
{
	const struct syngate_intercept *rule;

	if (!intercepting)
		return SYNGATE_DIVERT_no_socket;
	rule = intercept_of(syn->destination, bpf_ntohs(syn->destination_port));
	if (!rule)
		return SYNGATE_DIVERT_no_socket;

	bool listens = sk && sk->src_port == rule->listen_port && is_transparent(sk, STATE_LISTEN);

	if (tcp->syn && !tcp->ack)
		return listens ? SYNGATE_DIVERT_intercepted : SYNGATE_DIVERT_intercept_no_listener;
	if (listens && tcp->ack && !tcp->syn && !tcp->rst && answers_cookie(pkt, sk, syn, ip_off, tcp))
		return SYNGATE_DIVERT_intercepted_cookie;
	return SYNGATE_DIVERT_no_socket; /* of a connection that was forwarded before there was a rule */
}

static __always_inline int decide(struct packet *pkt)
{
	struct __sk_buff *skb = pkt->ctx;
	struct cursor cur = {};
	struct syn syn = {};
	struct tcphdr tcp;
	int reason;

	if (skb->pkt_type == PACKET_OTHERHOST)
		return SYNGATE_DIVERT_other_host;
	if (skb->vlan_present && (skb->vlan_tci & VLAN_ID))
		return SYNGATE_DIVERT_vlan;
	reason = parse_link(pkt, &cur);
	if (reason != PARSED)
		return unparsed(reason);
	if (pkt->ethernet && cur.off != ETH_HEADER)
		return SYNGATE_DIVERT_vlan;

	__u32 ip_off = cur.off;

	reason = parse_ip(pkt, &cur, &syn);
	if (reason != PARSED)
		return unparsed(reason);
	if (syn.fragment)
		return SYNGATE_DIVERT_fragment;
	if (is_own_address(syn.destination))
		return SYNGATE_DIVERT_local;
	if (!packet_load(pkt, cur.off, &tcp, sizeof(tcp)) || cur.off + sizeof(tcp) > cur.end)
		return SYNGATE_DIVERT_truncated;
	if (tcp.doff < 5)
		return SYNGATE_DIVERT_malformed;
	syn.source_port = tcp.source;
	syn.destination_port = tcp.dest;

	struct bpf_sock *sk = lookup(skb, &syn);

	if (!sk)
		return intercept(pkt, NULL, &syn, ip_off, &tcp);

	__u32 state = sk->state;

	if (state == STATE_LISTEN)
		reason = intercept(pkt, sk, &syn, ip_off, &tcp);
	else
		reason = is_transparent(sk, state) ? SYNGATE_DIVERT_diverted : SYNGATE_DIVERT_not_transparent;
	bpf_sk_release(sk);
	return reason;
}

static __always_inline int divert(struct __sk_buff *skb, bool ethernet)
{
	struct packet pkt = {
		.ctx = skb,
		.ethernet = ethernet,
		.len = skb->len,
		.ifindex = skb->ifindex,
		.protocol = skb->protocol,
	};
	int reason = decide(&pkt);

	count(reason);
	if (reason >= SYNGATE_DIVERT_diverted)
		skb->mark = (skb->mark & ~mask) | mark;
	return TC_NEXT;
}

SEC("tc")
int syngate_divert(struct __sk_buff *skb)
{
	return divert(skb, true);
}

/* For devices without a link-layer header: tun, wireguard, ipip. */
SEC("tc")
int syngate_div_l3(struct __sk_buff *skb)
{
	return divert(skb, false);
}

char LICENSE[] SEC("license") = "GPL";
