// SPDX-License-Identifier: GPL-2.0-or-later
#include "steer/steer_rules.hpp"

#include <fmt/format.h>
#include <map>

namespace syngate {
namespace {

using Rules = std::map<ListenAddress, std::vector<Listener>>;

std::unexpected<Error> bound_to_device(const Listener& listener) {
    return failure(
        Exit::impossible,
        fmt::format("the listener on {} is bound to a device (interface {}), which steering cannot "
                    "respect; policy hold can",
                    to_string(address_of(listener)), listener.device));
}

bool is_dual_stack(const Listener& listener) {
    const ListenAddress at = address_of(listener);
    return at.ipv6 && at.is_any() && !listener.ipv6_only;
}

ListenAddress every_ipv4(std::uint16_t port) {
    return {.ipv6 = false, .address = {}, .port = port};
}

bool covers(const Rules& rules, const ListenAddress& at) {
    return rules.contains(at) || rules.contains({.ipv6 = at.ipv6, .address = {}, .port = at.port});
}

} // namespace

Result<std::vector<SteerRule>> make_steer_rules(const std::vector<Destination>& wanted,
                                                const std::vector<Listener>& others) {
    Rules rules;
    Rules dual; // what comes over IPv4 to a dual-stack socket
    for (const Destination& each : wanted) {
        if (each.to.device != 0)
            return bound_to_device(each.to);
        ListenAddress at = address_of(each.to);
        at.port = each.port;
        rules[at].push_back(each.to);
        if (is_dual_stack(each.to))
            dual[every_ipv4(each.port)].push_back(each.to);
    }
    Rules exempt;
    for (const Listener& other : others) {
        const ListenAddress at = address_of(other);
        if (!covers(rules, at) && !covers(dual, at))
            continue;
        if (other.device != 0)
            return bound_to_device(other);
        if (!rules.contains(at))
            exempt[at];
    }
    // An IPv4 socket for every address goes before a dual-stack one, whoever has it.
    rules.merge(exempt);
    rules.merge(dual);
    std::vector<SteerRule> result;
    for (auto& [at, to] : rules)
        result.push_back({at, std::move(to)});
    return result;
}

} // namespace syngate
