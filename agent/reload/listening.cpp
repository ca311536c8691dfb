// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/listening.hpp"

#include <algorithm>
#include <iterator>

namespace syngate {

PortSet ports_of(const Listeners& listeners) {
    PortSet ports;
    for (const Listener& listener : listeners)
        ports.insert(listener.port);
    return ports;
}

std::set<std::uint64_t> cookies_of(const Listeners& listeners, const PortSet& ports) {
    std::set<std::uint64_t> cookies;
    for (const Listener& listener : listeners)
        if (ports.contains(listener.port))
            cookies.insert(listener.cookie);
    return cookies;
}

std::set<ListenAddress> addresses_of(const Listeners& listeners) {
    return addresses_of(listeners, ports_of(listeners));
}

std::set<ListenAddress> addresses_of(const Listeners& listeners, const PortSet& ports) {
    std::set<ListenAddress> addresses;
    for (const Listener& listener : listeners)
        if (ports.contains(listener.port))
            addresses.insert({listener.ipv6, listener.address, listener.port});
    return addresses;
}

Listeners without(const Listeners& listeners, const Listeners& gone) {
    Listeners left;
    std::ranges::copy_if(listeners, std::back_inserter(left), [&](const Listener& l) {
        return std::ranges::find(gone, l.cookie, &Listener::cookie) == gone.end();
    });
    return left;
}

PortSet restricted(const PortSet& among, const PortSet& wanted) {
    if (wanted.empty())
        return among;
    PortSet both;
    std::ranges::set_intersection(among, wanted, std::inserter(both, both.end()));
    return both;
}

PortSet changing_hands(const Listeners& before, const Listeners& after) {
    const PortSet after_ports = ports_of(after);
    std::set<std::uint64_t> kept;
    for (const Listener& listener : after)
        kept.insert(listener.cookie);
    PortSet changing;
    for (const Listener& listener : before)
        if (after_ports.contains(listener.port) && !kept.contains(listener.cookie))
            changing.insert(listener.port);
    return changing;
}

} // namespace syngate
