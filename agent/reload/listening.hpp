// SPDX-License-Identifier: GPL-2.0-or-later
// What can be said of two sets of listening sockets; no waiting, no kernel.
#pragma once

#include "base/ports.hpp"
#include "net/sock_diag.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <set>
#include <vector>

namespace syngate {

using Listeners = std::vector<Listener>;

PortSet ports_of(const Listeners& listeners);
std::set<std::uint64_t> cookies_of(const Listeners& listeners, const PortSet& ports);

// Where somebody can connect. A server binds one after the other, so that its port may listen for IPv4 and
// not yet for IPv6.
struct ListenAddress {
    bool ipv6 = false;
    std::array<std::uint8_t, 16> address{};
    std::uint16_t port = 0; // host byte order
    auto operator<=>(const ListenAddress&) const = default;
};
std::set<ListenAddress> addresses_of(const Listeners& listeners);
std::set<ListenAddress> addresses_of(const Listeners& listeners, const PortSet& ports);

// among restricted to wanted; all of it when wanted is empty.
PortSet restricted(const PortSet& among, const PortSet& wanted);

// The ports on which listening sockets change hands: both listen there, and not every socket of the old is
// in the new as well. A port that is new or gone is none of them.
PortSet changing_hands(const Listeners& before, const Listeners& after);

} // namespace syngate
