// SPDX-License-Identifier: GPL-2.0-only
/*
 * Transparent proxying: marks what must be routed to this host though its destination is foreign. A policy
 * rule on the mark does the rest, and after the first packets of a connection the kernel's early demux does
 * without it. Nothing is assigned here: why not is in docs/adr/0007.
 */
#include "addresses.h"
#include "count.h"
#include "icmp_error.h"
#include "packet.h"
#include "parse.h"
#include <bpf/bpf_core_read.h>

#define TC_NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the next program decides */
#define PACKET_OTHERHOST 3
#define CURRENT_NETNS (-1L)
#define SK_PASS 1

#define AF_INET 2
#define AF_INET6 10

#define BPF_SK_LOOKUP_F_NO_REUSEPORT 2

enum { STATE_TIME_WAIT = 6, STATE_LISTEN = 10, STATE_NEW_SYN_RECV = 12 };

/* skb->mark becomes (skb->mark & ~mask) | mark. */
const volatile __u32 mark = 0;
const volatile __u32 mask = 0;
/* There are rules in `intercepts`. */
const volatile bool intercepting = false;
/* CAP_PERFMON: false, and the verifier lets nobody look into a socket or compare two. */
const volatile bool may_look = true;

#define COUNT(name, ...) COUNT_CASE(SYNGATE_DIVERT_##name, name)
COUNTERS(divert_verdicts, struct syngate_divert_verdicts, SYNGATE_DIVERT_REASONS(COUNT))
#undef COUNT

/*
 * The listener that took the latest intercepted SYN, for the look-up that the stack does for the same SYN a
 * moment later: found anew each time, so it is whoever listens now, of whatever generation. The kernel
 * empties the entry of a socket that is closed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * SYNGATE_INTERCEPTS_MAX);
	__type(key, struct syngate_listener_key);
	__type(value, __u64);
} intercept_listeners SEC(".maps");

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
 * to a foreign address is here only because a transparent listener took it. Who may not look takes every
 * socket with a foreign address for transparent: hardly any other has one.
 */
static __always_inline bool is_transparent(struct bpf_sock *sk, __u32 state)
{
	if (!may_look || state == STATE_NEW_SYN_RECV)
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

/* The parser speaks of the gate's reasons. */
static __always_inline int unparsed(int reason)
{
	switch (reason) {
	case SYNGATE_REASON_not_ip:
		return SYNGATE_DIVERT_not_ip;
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

/* The socket for a packet like syn, but from this source to this port. */
static __always_inline struct bpf_sock *lookup_from(struct __sk_buff *skb, const struct syn *syn,
						    const __u8 *source, __be16 port)
{
	struct bpf_sock_tuple tuple = {};

	if (syn->ipv6) {
		__builtin_memcpy(tuple.ipv6.saddr, source, 16);
		__builtin_memcpy(tuple.ipv6.daddr, syn->destination, 16);
		tuple.ipv6.sport = syn->source_port;
		tuple.ipv6.dport = port;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), CURRENT_NETNS, 0);
	}
	__builtin_memcpy(&tuple.ipv4.saddr, source + 12, 4);
	__builtin_memcpy(&tuple.ipv4.daddr, syn->destination + 12, 4);
	tuple.ipv4.sport = syn->source_port;
	tuple.ipv4.dport = port;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), CURRENT_NETNS, 0);
}

static __always_inline struct bpf_sock *lookup(struct __sk_buff *skb, const struct syn *syn, __be16 port)
{
	return lookup_from(skb, syn, syn->source, port);
}

/* Whether the packet answers a SYN cookie of this listener: then no other trace of the connection is here. */
static __always_inline bool answers_cookie(const struct packet *pkt, struct bpf_sock *listener,
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

/*
 * Whether the stack's look-up finds a transparent listener on this port for the SYN: a filter that a killed
 * agent has left goes on, but syngate_offer is gone, and the SYN would be refused here. The source is one
 * that no connection has (SYNGATE_LOOKUP_IPV4): a TIME_WAIT socket does not stand in the way.
 */
static __always_inline bool stack_finds_listener(struct __sk_buff *skb, const struct syn *syn, __u16 port)
{
	__u8 nobody[16] = {};
	struct bpf_sock *found;
	bool listens;

	if (syn->ipv6)
		nobody[0] = 0xff;
	else
		map_ipv4(nobody, bpf_htonl(SYNGATE_LOOKUP_IPV4));
	found = lookup_from(skb, syn, nobody, syn->destination_port);
	if (!found)
		return false;
	listens = found->state == STATE_LISTEN && found->src_port == port &&
		  is_transparent(found, STATE_LISTEN);
	bpf_sk_release(found);
	return listens;
}

/* Makes the listener the one that the stack's look-up of this SYN finds. For a rule to the port that clients
 * connect to nothing is to be done. */
static __always_inline bool offer(struct bpf_sock *listener, const struct syn *syn, __u16 port)
{
	struct syngate_listener_key key = {.port = port, .family = syn->ipv6 ? AF_INET6 : AF_INET};
	struct bpf_sock *present;

	if (syn->destination_port == bpf_htons(port))
		return true;
	present = bpf_map_lookup_elem(&intercept_listeners, &key);
	if (present) {
		bool same = may_look && present == listener;

		bpf_sk_release(present);
		if (same)
			return true;
	}
	return bpf_map_update_elem(&intercept_listeners, &key, listener, 0) == 0;
}

/* A SYN to a foreign address, or a packet of no connection of this host. */
static __noinline int intercept(struct __sk_buff *skb, const struct syn *syn, __u32 ip_off,
				struct tcphdr *tcp)
{
	const struct packet packet = {.ctx = skb}, *pkt = &packet;
	bool is_syn = tcp->syn && !tcp->ack;
	int reason = is_syn ? SYNGATE_DIVERT_intercept_no_listener : SYNGATE_DIVERT_no_socket;

	if (!intercepting || tcp->rst || (tcp->syn && tcp->ack))
		return SYNGATE_DIVERT_no_socket;

	const struct syngate_intercept *rule =
		intercept_of(syn->destination, bpf_ntohs(syn->destination_port));
	if (!rule)
		return SYNGATE_DIVERT_no_socket;

	__u16 port = rule->listen_port;
	/* Of a VRF. Whether the packet belongs to that one is not asked: none is intercepted. */
	if (where_local(syn->destination))
		return SYNGATE_DIVERT_local;

	/* On another port than that one if it is flipped. */
	struct bpf_sock *listener = lookup(skb, syn, bpf_htons(port));
	if (!listener)
		return reason;

	__u16 at = listener->src_port;
	bool taken = false;

	if (listener->state == STATE_LISTEN && is_transparent(listener, STATE_LISTEN))
		taken = is_syn ? offer(listener, syn, port) : answers_cookie(pkt, listener, syn, ip_off, tcp);
	bpf_sk_release(listener);
	if (!taken || (syn->destination_port != bpf_htons(port) && !stack_finds_listener(skb, syn, at)))
		return reason;
	return is_syn ? SYNGATE_DIVERT_intercepted : SYNGATE_DIVERT_intercepted_cookie;
}

static __noinline int decide_error(struct __sk_buff *skb, __be16 protocol, __u32 ip_off)
{
	const struct packet packet = {.ctx = skb}, *pkt = &packet;
	int reason = SYNGATE_DIVERT_not_tcp;
	struct syn about = {};
	bool is_error = protocol == bpf_htons(ETH_P_IP) ? parse_error_v4(pkt, ip_off, &about)
							: parse_error_v6(pkt, ip_off, &about);

	if (!is_error || is_own_address(about.destination))
		return reason;

	struct bpf_sock *sk = lookup(skb, &about, about.destination_port);
	if (!sk)
		return reason;

	__u32 state = sk->state;

	if (state != STATE_LISTEN && is_transparent(sk, state))
		reason = SYNGATE_DIVERT_diverted_error;
	bpf_sk_release(sk);
	return reason;
}

/* Where the IP header is, and what is decided by. */
struct headers {
	__u32 ip_off;
	struct syn syn;
	struct tcphdr tcp;
};

static __always_inline bool read_plain_ipv4(const struct packet *pkt, __u32 link, struct headers *to)
{
	struct plain_ipv4 *head;
	__u32 ip_len;

	if (!plain_ipv4_at(pkt, link, &head) || head->tcp.doff < 5)
		return false;
	ip_len = bpf_ntohs(head->ip.tot_len);
	if (ip_len < sizeof(*head) || !packet_reaches(pkt, link + ip_len))
		return false;
	to->syn.ipv6 = false;
	map_ipv4(to->syn.source, head->ip.saddr);
	map_ipv4(to->syn.destination, head->ip.daddr);
	to->tcp = head->tcp;
	return true;
}

static __always_inline bool read_plain_ipv6(const struct packet *pkt, __u32 link, struct headers *to)
{
	struct plain_ipv6 *head;
	__u32 payload;

	if (!plain_ipv6_at(pkt, link, &head) || head->tcp.doff < 5)
		return false;
	payload = bpf_ntohs(head->ip.payload_len);
	if (payload < sizeof(head->tcp) || !packet_reaches(pkt, link + sizeof(head->ip) + payload))
		return false;
	to->syn.ipv6 = true;
	__builtin_memcpy(to->syn.source, &head->ip.saddr, 16);
	__builtin_memcpy(to->syn.destination, &head->ip.daddr, 16);
	to->tcp = head->tcp;
	return true;
}

/*
 * The headers of nearly every packet, read in place: no options or extensions, no fragment, no tag. False:
 * any other, or not whole; then read_any() tells what it is.
 */
static __always_inline bool read_plain(const struct packet *pkt, struct headers *to)
{
	to->ip_off = pkt->ethernet ? ETH_HEADER : 0;
	switch (((struct __sk_buff *)pkt->ctx)->protocol) {
	case bpf_htons(ETH_P_IP):
		return read_plain_ipv4(pkt, to->ip_off, to);
	case bpf_htons(ETH_P_IPV6):
		return read_plain_ipv6(pkt, to->ip_off, to);
	default:
		return false;
	}
}

/* PARSED, or the reason for which the packet passes. */
static __noinline int read_any(struct __sk_buff *skb, bool ethernet, struct headers *to)
{
	const struct packet packet = {.ctx = skb, .ethernet = ethernet}, *pkt = &packet;
	struct cursor cur = {};
	int reason = parse_link(pkt, &cur);

	if (reason != PARSED)
		return unparsed(reason);
	if (ethernet && cur.off != ETH_HEADER)
		return SYNGATE_DIVERT_vlan;
	to->ip_off = cur.off;
	reason = parse_ip(pkt, &cur, &to->syn);
	if (reason == SYNGATE_REASON_not_tcp)
		return decide_error(skb, cur.protocol, to->ip_off);
	if (reason != PARSED)
		return unparsed(reason);
	if (to->syn.fragment)
		return SYNGATE_DIVERT_fragment;
	if (is_own_address(to->syn.destination))
		return SYNGATE_DIVERT_local;
	if (!packet_load(pkt, cur.off, &to->tcp, sizeof(to->tcp)) || cur.off + sizeof(to->tcp) > cur.end)
		return SYNGATE_DIVERT_truncated;
	return to->tcp.doff < 5 ? SYNGATE_DIVERT_malformed : PARSED;
}

static __always_inline int decide(const struct packet *pkt)
{
	struct __sk_buff *skb = pkt->ctx;
	struct headers head;
	int reason;

	if (skb->pkt_type == PACKET_OTHERHOST)
		return SYNGATE_DIVERT_other_host;
	if (has_vlan_device(skb))
		return SYNGATE_DIVERT_vlan;
	if (read_plain(pkt, &head)) {
		if (is_own_address(head.syn.destination))
			return SYNGATE_DIVERT_local;
	} else {
		__builtin_memset(&head, 0, sizeof(head));
		reason = read_any(skb, pkt->ethernet, &head);
		if (reason != PARSED)
			return reason;
	}
	head.syn.source_port = head.tcp.source;
	head.syn.destination_port = head.tcp.dest;

	struct bpf_sock *sk = lookup(skb, &head.syn, head.syn.destination_port);
	__u32 state = sk ? sk->state : STATE_LISTEN;

	reason = SYNGATE_DIVERT_diverted;
	if (sk && state != STATE_LISTEN && !is_transparent(sk, state))
		reason = SYNGATE_DIVERT_not_transparent;
	if (sk)
		bpf_sk_release(sk);
	if (state == STATE_LISTEN)
		return intercept(skb, &head.syn, head.ip_off, &head.tcp);
	/* A new connection with the old one's four-tuple: the stack will look for the listener. */
	if (state == STATE_TIME_WAIT && reason == SYNGATE_DIVERT_diverted && head.tcp.syn && !head.tcp.ack) {
		int found = intercept(skb, &head.syn, head.ip_off, &head.tcp);

		return found == SYNGATE_DIVERT_no_socket || found == SYNGATE_DIVERT_local
			       ? SYNGATE_DIVERT_diverted
			       : found;
	}
	return reason;
}

static __always_inline int divert(struct __sk_buff *skb, bool ethernet)
{
	struct packet pkt = {
		.ctx = skb,
		.ethernet = ethernet,
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

/* The local address of a look-up. Each field is read once, whatever the family, the other family's being 0: a
 * compiler that merged the branches would make the context's offset a variable, which the verifier refuses.
 */
static __always_inline void local_address(struct bpf_sk_lookup *ctx, __u32 *address)
{
	volatile struct bpf_sk_lookup *from = ctx;
	__u32 v4 = from->local_ip4, first = from->local_ip6[0], second = from->local_ip6[1],
	      third = from->local_ip6[2], fourth = from->local_ip6[3];
	bool ipv4 = from->family == AF_INET;

	address[0] = first;
	address[1] = second;
	address[2] = ipv4 ? bpf_htonl(0xffff) : third;
	address[3] = ipv4 ? v4 : fourth;
}

/* The stack looks for a listener: for a SYN that was marked above, the one that was found there. */
SEC("sk_lookup")
int syngate_offer(struct bpf_sk_lookup *ctx)
{
	__u32 address[4];
	__u8 *destination = (__u8 *)address;
	const struct syngate_intercept *rule;
	struct bpf_sock *listener;

	if (ctx->protocol != NEXT_TCP || ctx->sk) /* somebody else has chosen */
		return SK_PASS;
	local_address(ctx, address);
	rule = intercept_of(destination, ctx->local_port);
	/* To its own port a rule needs no help; who looks for the listener of another rule there gets whom
	 * the kernel, and a steering program, would choose now. */
	if (!rule || rule->listen_port == ctx->local_port || where_local(destination))
		return SK_PASS;

	struct syngate_listener_key key = {.port = rule->listen_port, .family = ctx->family};

	listener = bpf_map_lookup_elem(&intercept_listeners, &key);
	if (!listener)
		return SK_PASS;
	/* Of its group the look-up at TC has chosen already. */
	bpf_sk_assign(ctx, listener, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(listener);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
