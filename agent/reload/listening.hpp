// SPDX-License-Identifier: GPL-2.0-or-later
// What can be said of two sets of listening sockets; no waiting, no kernel.
#pragma once

#include "base/ports.hpp"
#include "net/listen_address.hpp"
#include "net/sock_diag.hpp"

#include <cstdint>
#include <set>
#include <vector>

namespace syngate {

using Listeners = std::vector<Listener>;

PortSet ports_of(const Listeners& listeners);
std::set<std::uint64_t> cookies_of(const Listeners& listeners, const PortSet& ports);

std::set<ListenAddress> addresses_of(const Listeners& listeners);
std::set<ListenAddress> addresses_of(const Listeners& listeners, const PortSet& ports);

Listeners without(const Listeners& listeners, const Listeners& gone);

// among restricted to wanted; all of it when wanted is empty.
PortSet restricted(const PortSet& among, const PortSet& wanted);

// The ports on which listening sockets change hands: both listen there, and not every socket of the old is
// in the new as well. A port that is new or gone is none of them.
PortSet changing_hands(const Listeners& before, const Listeners& after);

} // namespace syngate
