// SPDX-License-Identifier: GPL-2.0-or-later
// Which interfaces are endpoints of this host, and which addresses are local to it, followed as
// they come and go (rtnetlink).
#pragma once

#include "base/result.hpp"
#include "event/loop.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

namespace syngate {

// lo, or an interface that holds an address; not a port of a bridge, a bond or a team, though such a
// port often holds a link-local one: what arrives there enters the stack from the upper device.
struct Endpoint {
    std::uint32_t ifindex = 0;
    std::string name;
    bool ethernet = true; // frames begin with an Ethernet header (ARPHRD_ETHER, ARPHRD_LOOPBACK)
    auto operator<=>(const Endpoint&) const = default;
};

// A local prefix; IPv4 as ::ffff:a.b.c.d with bits + 96.
struct LocalPrefix {
    std::uint32_t bits = 0; // 0 to 128
    std::array<std::uint8_t, 16> address{};
    auto operator<=>(const LocalPrefix&) const = default;
};

struct Addresses {
    std::map<std::uint32_t, Endpoint> endpoints; // by ifindex
    // Routes of type RTN_LOCAL in the tables local and main, and IPv6 addresses that have no such route
    // yet because they are tentative.
    std::set<LocalPrefix> local;
    // Such routes in the tables of VRFs, if no prefix of `local` covers them: local to what arrives in
    // theirs.
    std::set<LocalPrefix> local_in_vrf;
    // The routing policy asks the table local first, whoever sends: what is local depends on the
    // destination alone.
    bool local_first = false;
    auto operator<=>(const Addresses&) const = default;
};

class AddressWatch {
public:
    // Reads what is there now, then calls changed after each change, from the loop. A lost
    // notification (ENOBUFS) leads to a fresh reading, not to an error.
    static Result<std::unique_ptr<AddressWatch>> start(Loop& loop,
                                                       std::function<void(const Addresses&)> changed);
    ~AddressWatch();
    [[nodiscard]] const Addresses& now() const;

private:
    AddressWatch();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace syngate
