/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The one contract between the BPF programs and the agent: every map's key and value, and every
 * verdict reason. Included by both sides, so nothing is written twice.
 *
 * Times are CLOCK_MONOTONIC in nanoseconds (bpf_ktime_get_ns). Ports are in host byte order so that
 * `bpftool map dump` reads like the configuration. Addresses are in network byte order.
 */
#ifndef SYNGATE_ABI_H
#define SYNGATE_ABI_H

#ifndef __bpf__
#include <linux/types.h>
#endif

/* Bumped whenever the layout or the meaning of anything in this file changes. */
#define SYNGATE_ABI_VERSION 3

/*
 * Longest frame that can be parked, link-layer header included, in bytes. Bounded by what
 * BPF_PROG_RUN takes for one live frame: a 4096-byte page less its head, the XDP headroom (256)
 * and skb_shared_info (320), see bpf_prog_test_run_xdp() in the kernel's net/bpf/test_run.c.
 */
#define SYNGATE_FRAME_MAX 3072

/* How a gated port survives the swap. 3 is kept for `flip`, which needs no gate. */
enum syngate_policy {
	SYNGATE_POLICY_DROP = 1,
	SYNGATE_POLICY_HOLD = 2,
};

/*
 * Verdict reasons: X(name, verdict, meaning). The position is the number; a reason is never
 * renumbered within one ABI version. `pass` lets the next program on the interface run.
 */
#define SYNGATE_REASONS(X)                                                                 \
	X(gate_open, pass, "no gate is closed")                                            \
	X(lease_expired, pass, "the gate's lease has ended, the port opened by itself")    \
	X(other_host, pass, "the frame is addressed to another host's link-layer address") \
	X(not_ip, pass, "neither IPv4 nor IPv6")                                           \
	X(not_tcp, pass, "not TCP")                                                        \
	X(later_fragment, pass, "a fragment without the TCP header")                       \
	X(truncated, pass, "the frame ends before its headers do")                         \
	X(malformed, pass, "a header contradicts itself, or there are too many of them")   \
	X(not_syn, pass, "TCP, but no SYN or a SYN with ACK")                              \
	X(not_gated, pass, "a SYN to a port that is not gated")                            \
	X(not_local, pass, "a SYN to an address that is not local to this host")           \
	X(dropped, drop, "a SYN dropped by policy drop")                                   \
	X(hold_unavailable, drop, "dropped: this kernel or device cannot replay")          \
	X(park_full, drop, "dropped: the park memory is full")                             \
	X(park_too_long, drop, "dropped: longer than a frame that can be replayed")        \
	X(parked, hold, "a SYN parked by policy hold")

enum syngate_reason {
#define SYNGATE_REASON_ENUM(name, verdict, meaning) SYNGATE_REASON_##name,
	SYNGATE_REASONS(SYNGATE_REASON_ENUM) SYNGATE_REASON_COUNT,
#undef SYNGATE_REASON_ENUM
};

/* Map `verdicts`, per CPU, one entry: packets per reason since the agent started. */
struct syngate_verdicts {
#define SYNGATE_REASON_FIELD(name, verdict, meaning) __u64 name;
	SYNGATE_REASONS(SYNGATE_REASON_FIELD)
#undef SYNGATE_REASON_FIELD
};

/*
 * Map `gate`, one entry, mmapable. The gate is closed while
 * now < closed_until_ns and now < max_until_ns: a store to closed_until_ns is the one atomic step
 * that closes or opens any number of ports. Everything else is written before it.
 */
struct syngate_gate {
	__u32 abi_version;
	__u32 owner_pid;       /* as its own PID namespace numbers it; for people */
	__u64 owner_id;        /* random; names the owner's abstract socket, which dies with it */
	__u64 closed_until_ns; /* the lease; 0: open */
	__u64 max_until_ns;    /* closed_at_ns + --max-window, whatever is renewed */
	__u64 closed_at_ns;
	__u32 generation; /* the window: ports whose entry carries it are gated */
	/* 1: the routing policy asks the table local first, whoever sends, so that whether a SYN is for this
	 * host depends on its destination alone. */
	__u32 local_first;
};

/* Map `ports`: key __u16 port. Gated while the gate is closed and the generation is the gate's. */
struct syngate_port {
	__u32 generation;
	__u32 policy; /* enum syngate_policy */
};

enum syngate_hook {
	SYNGATE_HOOK_TCX = 1,
	SYNGATE_HOOK_TC = 2,
	SYNGATE_HOOK_XDP_NATIVE = 3,
	SYNGATE_HOOK_XDP_GENERIC = 4,
};

/* Map `interfaces`: key __u32 ifindex. */
struct syngate_interface {
	char name[16];
	__u32 hook;       /* enum syngate_hook */
	__u32 can_replay; /* 1: parked frames can re-enter here; 0: hold degrades to drop */
	__u32 ethernet;   /* 1: frames begin with an Ethernet header; 0: with the IP header */
	__u32 made_qdisc; /* 1: the clsact qdisc is ours to remove */
};

/* Value of the map `local_addresses`. */
enum syngate_local {
	SYNGATE_LOCAL_HERE = 1, /* in the tables local or main */
	SYNGATE_LOCAL_VRF = 2,  /* in the table of a VRF alone */
};

/* Map `local_addresses` (LPM trie): IPv4 as ::ffff:a.b.c.d, prefix length + 96. */
struct syngate_prefix {
	__u32 prefix_len; /* bits, 0 to 128 */
	__u8 address[16];
};

/* More rules than a person writes; bounds the map. */
#define SYNGATE_INTERCEPTS_MAX 1024

/*
 * Map `intercepts` (LPM trie): connections to this port of addresses in this prefix that are not this
 * host's go to a local transparent listener.
 */
struct syngate_intercept_key {
	__u32 prefix_len; /* bits, 16 (every address) to 16 + 128: the port comes first and counts whole */
	__u16 port;
	__u8 address[16]; /* as in struct syngate_prefix */
	__u16 reserved;   /* 0 */
};

struct syngate_intercept {
	__u16 listen_port;
	__u16 reserved;
};

/*
 * Map `staged_listeners`: where transparent listeners were, on ports that rules intercept to, when the ports
 * of this generation were staged. What none of them would have got meets no closed gate: it is forwarded.
 */
struct syngate_staged_listener {
	__u32 generation;
	__u32 port;       /* host byte order */
	__u8 address[16]; /* as in struct syngate_prefix; for every address of a family :: or ::ffff:0.0.0.0
			   */
};

/* Map `intercept_listeners`: the socket, shown as its cookie, that the latest intercepted SYN went to. */
struct syngate_listener_key {
	__u16 port;
	__u16 family; /* of the SYN: AF_INET or AF_INET6 */
};

/*
 * What the divert program does with a packet, and why: as SYNGATE_REASONS. `mark` lets the packet go on, with
 * the mark by which it is routed to this host.
 */
#define SYNGATE_DIVERT_REASONS(X)                                                               \
	X(other_host, pass, "the frame is addressed to another host's link-layer address")      \
	X(vlan, pass, "the frame belongs to a VLAN device, which has a program of its own")     \
	X(not_ip, pass, "neither IPv4 nor IPv6")                                                \
	X(not_tcp, pass, "not TCP")                                                             \
	X(fragment, pass, "a fragment: the connection it belongs to is not told by it alone")   \
	X(truncated, pass, "the frame ends before its headers do")                              \
	X(malformed, pass, "a header contradicts itself, or there are too many of them")        \
	X(source_routed, pass, "a routing header leads further: this host is only a stop")      \
	X(local, pass, "to an address of this host: it arrives without help")                   \
	X(no_socket, pass, "to a foreign address, and no connection of this host")              \
	X(not_transparent, pass, "of a connection whose socket is not transparent")             \
	X(intercept_no_listener, pass, "an intercept rule is for it, but nobody listens there") \
	X(diverted, mark, "of a transparent connection of this host")                           \
	X(diverted_error, mark, "an ICMP error about a transparent connection of this host")    \
	X(intercepted, mark, "a SYN that an intercept rule leads to a listener")                \
	X(intercepted_cookie, mark, "the answer to a SYN cookie of an intercepting listener")

enum syngate_divert_reason {
#define SYNGATE_DIVERT_ENUM(name, verdict, meaning) SYNGATE_DIVERT_##name,
	SYNGATE_DIVERT_REASONS(SYNGATE_DIVERT_ENUM) SYNGATE_DIVERT_COUNT,
#undef SYNGATE_DIVERT_ENUM
};

/* Map `divert_verdicts`, per CPU, one entry: packets per reason since the agent started. */
struct syngate_divert_verdicts {
#define SYNGATE_DIVERT_FIELD(name, verdict, meaning) __u64 name;
	SYNGATE_DIVERT_REASONS(SYNGATE_DIVERT_FIELD)
#undef SYNGATE_DIVERT_FIELD
};

/* Ring buffer `parked`: this head, then frame_len bytes of the frame as received. */
struct syngate_parked {
	__u64 at_ns;
	__u32 ifindex;
	__u32 generation;
	__u16 frame_len;  /* bytes */
	__u16 vlan_tci;   /* host byte order; the tag the device took out of the frame */
	__u16 vlan_proto; /* network byte order; 0: no tag was taken out */
	__u16 ethernet;   /* as in struct syngate_interface */
};

/* What the iterator over the listening sockets writes, one after the other. */
struct syngate_queue {
	__u64 cookie;    /* as sock_diag's; 0: nobody has asked for it yet */
	__u32 half_open; /* SYN_RECV: the final ACK is awaited */
	__u32 young;     /* those of them whose SYN-ACK was not repeated yet: younger than 1 s */
	__u32 accept;    /* connections that wait for accept() */
	__u32 reserved;
};

/*
 * Steering. What the sk_lookup program did with the look-up of a listening socket (one for each SYN,
 * and for each packet that belongs to no connection): X(name, meaning), numbered by position.
 */
#define SYNGATE_STEER_REASONS(X)                                                        \
	X(idle, "nothing is steered")                                                   \
	X(not_tcp, "not TCP")                                                           \
	X(own_lookup, "the agent's own, which looks for listeners")                     \
	X(selected_before, "another program of the namespace has selected a socket")    \
	X(no_rule, "to an address and port that is not steered")                        \
	X(exempt, "to an address that is left to somebody else's listener")             \
	X(no_listener, "the sockets of the rule are closed: by the kernel's own rules") \
	X(refused, "the kernel does not take the socket for this packet")               \
	X(steered, "to a socket of the generation")

enum syngate_steer_reason {
#define SYNGATE_REASON_ENUM(name, meaning) SYNGATE_STEER_REASON_##name,
	SYNGATE_STEER_REASONS(SYNGATE_REASON_ENUM) SYNGATE_STEER_REASON_COUNT,
#undef SYNGATE_REASON_ENUM
};

/* Map `steer_verdicts`, per CPU, one entry: look-ups per reason since the agent started. */
struct syngate_steer_verdicts {
#define SYNGATE_REASON_FIELD(name, meaning) __u64 name;
	SYNGATE_STEER_REASONS(SYNGATE_REASON_FIELD)
#undef SYNGATE_REASON_FIELD
};

/*
 * Map `steer`, one entry, mmapable. A store to `active` is the one atomic step that steers any number
 * of ports anew or leaves them to the kernel's own rules. Everything else is written before it.
 */
struct syngate_steer {
	__u32 abi_version;
	__u32 owner_pid; /* as its own PID namespace numbers it; for people */
	__u64 owner_id;  /* as in struct syngate_gate */
	__u32 active;    /* the generation whose rules hold; 0: none */
	__u32 reserved;
};

/* Map `steer_rules`: the rule for one local address, or, where it is all zeros, for every other. */
struct syngate_steer_key {
	__u32 generation;
	__u32 port;       /* host byte order */
	__u8 address[16]; /* IPv4 as ::ffff:a.b.c.d, its every address as ::ffff:0.0.0.0 */
};

struct syngate_steer_rule {
	__u32 first_slot; /* in `sockets`; this one and those behind it */
	__u32 sockets;    /* how many; 0: by the kernel's own rules */
	__u64 steered;    /* connections that went to one of them */
	__u64 no_listener;
};

/* Entries of the map `sockets`: listening sockets of all generations that exist at a time. */
#define SYNGATE_STEER_SLOTS 16384

/*
 * The address that the agent's own look-ups of listeners come from, in host byte order; over IPv6 it is
 * ff00::. No packet has a broadcast or multicast address for its source: the kernel drops such ones first.
 */
#define SYNGATE_LOOKUP_IPV4 0xffffffff

/* What the program that fills `sockets` is run on, behind this many bytes of link-layer header. */
#define SYNGATE_CAPTURE_OFFSET 14
struct syngate_capture {
	__u8 address[16];  /* network byte order; IPv4 in the first four bytes */
	__u16 port;        /* host byte order */
	__u16 source_port; /* host byte order; picks the member of a SO_REUSEPORT group */
	__u32 slot;
	__u32 ipv6;
};

#ifdef __cplusplus
#define SYNGATE_ASSERT(c) static_assert(c, #c)
#else
#define SYNGATE_ASSERT(c) _Static_assert(c, #c)
#endif
SYNGATE_ASSERT(sizeof(struct syngate_verdicts) == 8 * SYNGATE_REASON_COUNT);
SYNGATE_ASSERT(sizeof(struct syngate_gate) == 48);
SYNGATE_ASSERT(sizeof(struct syngate_port) == 8);
SYNGATE_ASSERT(sizeof(struct syngate_interface) == 32);
SYNGATE_ASSERT(sizeof(struct syngate_prefix) == 20);
SYNGATE_ASSERT(sizeof(struct syngate_parked) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_intercept_key) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_intercept) == 4);
SYNGATE_ASSERT(sizeof(struct syngate_staged_listener) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_listener_key) == 4);
SYNGATE_ASSERT(sizeof(struct syngate_divert_verdicts) == 8 * SYNGATE_DIVERT_COUNT);
SYNGATE_ASSERT(sizeof(struct syngate_queue) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_steer_verdicts) == 8 * SYNGATE_STEER_REASON_COUNT);
SYNGATE_ASSERT(sizeof(struct syngate_steer) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_steer_key) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_steer_rule) == 24);
SYNGATE_ASSERT(sizeof(struct syngate_capture) == 28);

#endif
