// SPDX-License-Identifier: GPL-2.0-or-later
// Transparent proxying as text, in the table mangle:
//
//     PREROUTING            TCP and ICMP to foreign addresses go to
//     SYNGATE-<id>-d        SYNs to -l, as long as the agent lives; what belongs to a transparent socket is
//                           marked (divert)
//     SYNGATE-<id>-l        -j TPROXY, the longest prefix first (intercept)
//
// SYNs first: one that meets a TIME_WAIT socket of its four-tuple starts a new connection, which TPROXY knows
// how to do and a mark does not. Nothing is accepted here but by TPROXY: other rules of mangle see what is
// marked.
#pragma once

#include "iptables/rules.hpp"
#include "net/sock_diag.hpp"

namespace syngate::rules {

struct Transparent {
    std::uint64_t owner = 0;
    bool ipv6 = false;
    std::uint32_t mark = 0;
    std::uint32_t mask = 0;
    bool addrtype = true; // else packets to this host's own addresses are marked as well, to no effect
    Made made = {};
};

// listened: ports on which somebody listens for TPROXY; what a rule leads to another goes its normal way.
// lease: a match. with_jumps: for the first time; later the chains alone are replaced.
std::string transparent(const Transparent& how, const std::vector<Intercept>& intercepts,
                        const PortSet& listened, const std::string& lease, bool with_jumps);

// The ports on which -j TPROXY finds somebody: a transparent listener on every address and interface.
PortSet intercepted_to(const std::vector<Listener>& listeners, bool ipv6);

// Those of a family, the longest prefix first.
std::vector<Intercept> by_length(const std::vector<Intercept>& intercepts, bool ipv6);
// "-d 198.51.100.0/24 -p tcp -m tcp --dport 80"
std::string match_of(const Intercept& rule, bool ipv6);

struct TransparentCounts {
    std::uint64_t diverted = 0;
    std::uint64_t diverted_error = 0; // ICMP
    std::uint64_t intercepted = 0;
};
TransparentCounts transparent_counts(std::string_view saved, std::uint64_t owner);

} // namespace syngate::rules
