// SPDX-License-Identifier: GPL-2.0-or-later
// The flip as text, -j DNAT, in the table nat: SYNs to this host's own addresses are led to another port,
// those that come in (PREROUTING) and those of this host itself (OUTPUT).
#pragma once

#include "iptables/rules.hpp"
#include "net/listen_address.hpp"

namespace syngate::rules {

struct Redirect {
    ListenAddress at;
    std::uint16_t to = 0; // 0: left alone, though a rule for every address would match
    auto operator<=>(const Redirect&) const = default;
};

struct Redirection {
    std::uint64_t owner = 0;
    bool ipv6 = false;
    Made made = {};
    // By which connections were led that go on. They come to no rule any more, but conntrack, which
    // translates their packets, is at work only as long as some rule needs it.
    std::vector<Redirect> former = {};
};

// Those of the family, addresses of their own first. lease: a match. with_jumps: for the first time.
std::string redirected(const Redirection& how, const std::vector<Redirect>& redirects,
                       const std::string& lease, bool with_jumps);

// --- in the output of iptables-save ---
struct Redirected {
    bool ipv6 = false;
    std::uint16_t port = 0, to = 0;
    std::uint64_t connections = 0;
};
std::vector<Redirected> redirects_in(std::string_view saved, std::uint64_t owner, bool ipv6);

} // namespace syngate::rules
