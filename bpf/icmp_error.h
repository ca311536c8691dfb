/* SPDX-License-Identifier: GPL-2.0-only */
/* The TCP connection that an ICMP or ICMPv6 error is about. */
#ifndef SYNGATE_ICMP_ERROR_H
#define SYNGATE_ICMP_ERROR_H

#include "parse.h"

enum { NEXT_ICMP = 1, NEXT_ICMPV6 = 58 };
enum { ICMP_UNREACHABLE = 3, ICMP_TIME_EXCEEDED = 11, ICMP_PARAMETER_PROBLEM = 12 };
#define ICMPV6_INFORMATIONAL 128 /* types below are errors */
#define ICMP_HEADER 8            /* bytes, before the packet that an error is about */

/*
 * An ICMP error is addressed to whom the packet that it is about came from: path MTU discovery of a
 * transparent connection depends on it. Fills in the four-tuple as packets of that connection have it; false:
 * none, or not about TCP.
 */
static __always_inline bool parse_error_v4(const struct packet *pkt, __u32 off, struct syn *syn)
{
	struct iphdr outer, inner;
	__be16 ports[2];
	__u8 type;

	if (!packet_load(pkt, off, &outer, sizeof(outer)) || outer.version != 4 || outer.ihl < 5 ||
	    outer.protocol != NEXT_ICMP || (outer.frag_off & bpf_htons(0x3fff)))
		return false;
	off += outer.ihl * 4;
	if (!packet_load(pkt, off, &type, sizeof(type)) ||
	    (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER_PROBLEM))
		return false;
	off += ICMP_HEADER;
	if (!packet_load(pkt, off, &inner, sizeof(inner)) || inner.ihl < 5 || inner.protocol != NEXT_TCP ||
	    !packet_load(pkt, off + inner.ihl * 4, ports, sizeof(ports)))
		return false;
	syn->ipv6 = false;
	map_ipv4(syn->source, inner.daddr);
	map_ipv4(syn->destination, inner.saddr);
	syn->source_port = ports[1];
	syn->destination_port = ports[0];
	return true;
}

static __always_inline bool parse_error_v6(const struct packet *pkt, __u32 off, struct syn *syn)
{
	struct ipv6hdr outer, inner;
	__be16 ports[2];
	__u8 type;

	if (!packet_load(pkt, off, &outer, sizeof(outer)) || outer.version != 6 ||
	    outer.nexthdr != NEXT_ICMPV6)
		return false;
	off += sizeof(outer);
	if (!packet_load(pkt, off, &type, sizeof(type)) || type >= ICMPV6_INFORMATIONAL)
		return false;
	off += ICMP_HEADER;
	if (!packet_load(pkt, off, &inner, sizeof(inner)) || inner.nexthdr != NEXT_TCP ||
	    !packet_load(pkt, off + sizeof(inner), ports, sizeof(ports)))
		return false;
	syn->ipv6 = true;
	__builtin_memcpy(syn->source, &inner.daddr, 16);
	__builtin_memcpy(syn->destination, &inner.saddr, 16);
	syn->source_port = ports[1];
	syn->destination_port = ports[0];
	return true;
}

#endif
