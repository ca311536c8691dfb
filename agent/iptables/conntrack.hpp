// SPDX-License-Identifier: GPL-2.0-or-later
// TCP connections of this network namespace, as conntrack knows them.
#pragma once

#include "net/address_watch.hpp"
#include "net/netlink.hpp"

#include <cstdint>
#include <functional>
#include <set>

namespace syngate {

// Its pointers are into the kernel's message; nullptr: not told.
struct Tracked {
    bool ipv6 = false;
    std::uint16_t from = 0;            // the port that the client named
    std::uint16_t to = 0;              // the port that answers
    std::uint8_t state = 0;            // TCP_CONNTRACK_...
    const nlattr* original = nullptr;  // CTA_TUPLE_ORIG
    const nlattr* answering = nullptr; // CTA_TUPLE_REPLY
    const nlattr* zone = nullptr;
    const nlattr* id = nullptr;
};

using OnTracked = std::function<void(const Tracked&)>;

// only_unanswered: kernels from 5.15 on tell of no others, older ones of all. restart: as for Netlink::dump.
Result<void> list_connections(Netlink& netlink, bool ipv6, bool only_unanswered,
                              const std::function<void()>& restart, const OnTracked& on_connection);
// This connection as it is now, if it is there.
Result<void> look_at_connection(Netlink& netlink, const Tracked& connection, const OnTracked& on_connection);
Result<void> forget_connection(Netlink& netlink, const Tracked& connection);

// Whether what answers is an address of this host, of those at the time of the constructor.
class AnswersHere {
public:
    AnswersHere();
    [[nodiscard]] bool operator()(const Tracked& connection) const;

private:
    std::set<LocalPrefix> local_;
};

} // namespace syngate
