// SPDX-License-Identifier: GPL-2.0-only
/*
 * The gate: one logic behind three programs, for TC and TCX on devices with and without an Ethernet
 * header, and for XDP. Every frame ends in one numbered reason with a counter.
 */
#include "addresses.h"
#include "alike.h"
#include "count.h"
#include "packet.h"
#include "parse.h"

#define TC_NEXT (-1) /* TCX_NEXT and TC_ACT_UNSPEC: the next program decides */
#define TC_DROP 2    /* TCX_DROP and TC_ACT_SHOT */
#define PACKET_OTHERHOST 3
#define LOOPBACK 1 /* LOOPBACK_IFINDEX in the kernel's net.h */

#define AF_INET 2
#define AF_INET6 10

#define BPF_F_MMAPABLE 1024

/* False: no ring buffer or no live frames in this kernel; `hold` then drops and counts. */
const volatile bool can_hold = true;
/* There are rules in `intercepts`. */
const volatile bool intercepting = false;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syngate_gate);
} gate SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u16);
	__type(value, struct syngate_port);
} ports SEC(".maps");

#define COUNT(name, ...) COUNT_CASE(SYNGATE_REASON_##name, name)
COUNTERS(verdicts, struct syngate_verdicts, SYNGATE_REASONS(COUNT))
#undef COUNT

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct syngate_interface);
} interfaces SEC(".maps");

/* A value says nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct syngate_staged_listener);
	__type(value, __u32);
} staged_listeners SEC(".maps");

/* max_entries, the park memory in bytes, is set by the agent before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} parked SEC(".maps");

/* A power of two: a mask then says to the verifier that a length fits. */
#define SCRATCH_FRAME 4096
_Static_assert(SYNGATE_FRAME_MAX <= SCRATCH_FRAME, "a frame that may be parked fits");

struct scratch {
	struct syngate_parked head;
	__u8 frame[SCRATCH_FRAME];
};

/* A record is put together here: larger than a BPF stack, and never seen by another CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/*
 * Local: in the agent's copy of the local routing tables, and not a destination that this interface
 * would forward (another VRF may route an address that is local elsewhere). bpf_fib_lookup alone
 * cannot tell: it answers "not forwarded" for an unroutable address as well.
 */
static __always_inline bool is_local(const struct packet *pkt, const struct syn *syn)
{
	if (!is_own_address(syn->destination))
		return false;

	struct bpf_fib_lookup fib = {
		.family = syn->ipv6 ? AF_INET6 : AF_INET,
		.l4_protocol = NEXT_TCP,
		.sport = syn->source_port,
		.dport = syn->destination_port,
		.tot_len = syn->ip_len,
		.ifindex = packet_ifindex(pkt),
	};
	if (syn->ipv6) {
		__builtin_memcpy(fib.ipv6_src, syn->source, 16);
		__builtin_memcpy(fib.ipv6_dst, syn->destination, 16);
	} else {
		__builtin_memcpy(&fib.ipv4_src, syn->source + 12, 4);
		__builtin_memcpy(&fib.ipv4_dst, syn->destination + 12, 4);
	}
	switch (bpf_fib_lookup(pkt->ctx, &fib, sizeof(fib), 0)) {
	case 0: /* BPF_FIB_LKUP_RET_SUCCESS */
	case 6: /* BPF_FIB_LKUP_RET_UNSUPP_LWT */
	case 7: /* BPF_FIB_LKUP_RET_NO_NEIGH */
	case 8: /* BPF_FIB_LKUP_RET_FRAG_NEEDED */
		return false;
	default:
		return true;
	}
}

/*
 * A length of 1 to SCRATCH_FRAME bytes, unchanged. Where the compiler keeps the value on the stack, the
 * verifier of Linux 6.1 does not apply to it what a comparison taught of its copy in a register;
 * arithmetic on the very register that is passed it cannot miss.
 */
static __always_inline __u64 bounded(__u64 len)
{
	asm volatile("%0 += -1\n\t"
		     "%0 &= %1\n\t"
		     "%0 += 1"
		     : "+r"(len)
		     : "i"(SCRATCH_FRAME - 1));
	return len;
}

/* Parks the frame whole, or says why it is dropped instead. */
static __always_inline int park(const struct packet *pkt, const struct syngate_gate *g, __u64 now)
{
	__u32 zero = 0, ifindex = packet_ifindex(pkt);
	struct syngate_interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct scratch *record = bpf_map_lookup_elem(&scratch, &zero);

	if (!can_hold || !interface || !interface->can_replay || !record)
		return SYNGATE_REASON_hold_unavailable;
	__u64 len = packet_len(pkt);
	if (len > SYNGATE_FRAME_MAX)
		return SYNGATE_REASON_park_too_long;

	record->head = (struct syngate_parked){
		.at_ns = now,
		.ifindex = ifindex,
		.generation = g->generation,
		.frame_len = len,
		.ethernet = pkt->ethernet,
	};
	if (!pkt->is_xdp) {
		struct __sk_buff *skb = pkt->ctx;

		if (skb->vlan_present) {
			record->head.vlan_tci = skb->vlan_tci;
			record->head.vlan_proto = skb->vlan_proto;
		}
	}
	if (!packet_copy(pkt, record->frame, bounded(len)))
		return SYNGATE_REASON_hold_unavailable;
	if (bpf_ringbuf_output(&parked, record, sizeof(record->head) + bounded(len), 0))
		return SYNGATE_REASON_park_full;
	return SYNGATE_REASON_parked;
}

/* Whether a transparent listener on this port would have got the SYN before the gate was closed. */
static __always_inline bool was_listened_for(const struct syn *syn, __u32 port, __u32 generation)
{
	struct syngate_staged_listener key = {.generation = generation, .port = port};

	__builtin_memcpy(key.address, syn->destination, sizeof(key.address));
	if (bpf_map_lookup_elem(&staged_listeners, &key))
		return true;
	__builtin_memset(key.address, 0, sizeof(key.address));
	if (!syn->ipv6)
		key.address[10] = key.address[11] = 0xff;
	return bpf_map_lookup_elem(&staged_listeners, &key) != NULL;
}

/*
 * A connection to a foreign address that ends at a listener here: its SYN counts as one to that listener's
 * port, which replaces the number. What divert.bpf.c would let pass is none: neither is it held or dropped.
 */
static __always_inline bool is_intercepted(const struct packet *pkt, const struct syn *syn, __u32 generation,
					   __u16 *number)
{
	const struct syngate_intercept *rule;
	__u16 port;

	if (!intercepting || packet_ifindex(pkt) == LOOPBACK || syn->fragment || syn->tagged ||
	    where_local(syn->destination))
		return false;
	rule = intercept_of(syn->destination, *number);
	if (!rule)
		return false;
	port = rule->listen_port;
	if (!was_listened_for(syn, port, generation))
		return false;
	*number = port;
	return true;
}

/* The gate is closed, or was until its lease ended. */
static __always_inline int decide(const struct packet *pkt, const struct syngate_gate *g, __u64 closed_until)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 until = closed_until < g->max_until_ns ? closed_until : g->max_until_ns;

	if (now >= until)
		return SYNGATE_REASON_lease_expired;

	struct syn syn = {};
	/* Kept whole on the stack: without CAP_PERFMON no slot may hold a pointer first and a part of it
	 * then. */
	asm volatile("" : : "r"(&syn) : "memory");
	int reason = parse_syn(pkt, &syn);
	if (reason != PARSED)
		return reason;
	if (!pkt->is_xdp)
		syn.tagged |= has_vlan_device(pkt->ctx);

	__u16 number = bpf_ntohs(syn.destination_port);
	bool intercepted = is_intercepted(pkt, &syn, g->generation, &number);
	struct syngate_port *port = bpf_map_lookup_elem(&ports, &number);
	if (!port || port->generation != g->generation)
		return SYNGATE_REASON_not_gated;
	if (!intercepted && !is_local(pkt, &syn))
		return SYNGATE_REASON_not_local;
	if (port->policy == SYNGATE_POLICY_HOLD)
		return park(pkt, g, now);
	if (!intercepted)
		remember_dropped(pkt, g, &syn, until - now);
	return SYNGATE_REASON_dropped;
}

static __always_inline int verdict(const struct packet *pkt, int pass, int drop)
{
	__u32 zero = 0;
	const struct syngate_gate *g = bpf_map_lookup_elem(&gate, &zero);
	__u64 closed_until = g ? *(volatile __u64 *)&g->closed_until_ns : 0;

	if (!closed_until) {
		count(SYNGATE_REASON_gate_open);
		return pass;
	}
	if (is_like_last_dropped(pkt, g)) {
		count(SYNGATE_REASON_dropped);
		return drop;
	}

	int reason = decide(pkt, g, closed_until);

	count(reason);
	return reason < SYNGATE_REASON_dropped ? pass : drop;
}

static __always_inline int gate_skb(struct __sk_buff *skb, bool ethernet)
{
	struct packet pkt = {
		.ctx = skb,
		.ethernet = ethernet,
	};

	if (skb->pkt_type == PACKET_OTHERHOST) {
		count(SYNGATE_REASON_other_host);
		return TC_NEXT;
	}
	return verdict(&pkt, TC_NEXT, TC_DROP);
}

SEC("tc")
int syngate_tc(struct __sk_buff *skb)
{
	return gate_skb(skb, true);
}

/* For devices without a link-layer header: tun, wireguard, ipip. */
SEC("tc")
int syngate_tc_l3(struct __sk_buff *skb)
{
	return gate_skb(skb, false);
}

SEC("xdp")
int syngate_xdp(struct xdp_md *xdp)
{
	struct packet pkt = {
		.ctx = xdp,
		.is_xdp = true,
		.ethernet = true,
	};

	return verdict(&pkt, XDP_PASS, XDP_DROP);
}

char LICENSE[] SEC("license") = "GPL";
