// SPDX-License-Identifier: GPL-2.0-or-later
// Policy rules and the routes of a table, as the kernel tells them (rtnetlink).
#pragma once

#include "net/netlink.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace syngate {

struct Rule {
    int family = 0; // AF_INET, AF_INET6
    std::uint32_t priority = 0;
    std::uint32_t mark = 0;
    std::uint32_t mask = 0; // 0: it does not look at marks
    std::uint32_t table = 0;
    std::uint8_t protocol = 0;
    bool to_table = false; // its action is to look into a table
    bool inverted = false;
    bool by_mark_alone = false; // no address, interface or other selector
    bool operator==(const Rule&) const = default;
};

struct Route {
    int family = 0;
    std::uint32_t table = 0;
    std::uint8_t type = 0; // RTN_...
    std::uint8_t protocol = 0;
    std::uint8_t prefix_bits = 0; // of its destination
    std::uint32_t device = 0;     // ifindex
    bool operator==(const Route&) const = default;
};

// Both families, each in the order in which the kernel asks; one that is absent from the kernel has none.
Result<std::vector<Rule>> read_rules(Netlink& netlink);
Result<std::vector<Route>> read_table(Netlink& netlink, std::uint32_t table);
Result<std::vector<Route>> read_routes_of_protocol(Netlink& netlink, std::uint8_t protocol);

// The first rule of each family that has any asks the table local, whatever the packet.
[[nodiscard]] bool table_local_is_first(const std::vector<Rule>& rules);

std::string to_text(const Rule& rule);
std::string to_text(const Route& route);

} // namespace syngate
