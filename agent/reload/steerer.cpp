// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/steerer.hpp"

#include "steer/steer_rules.hpp"
#include "steer/steering_json.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <set>
#include <spdlog/spdlog.h>

namespace syngate {

Result<void> Steerer::apply(const PortFlips& flips, const Listeners& to, const PortSet& ports,
                            const Listeners& gone, bool all_must_listen) {
    auto all = sockets_.listeners();
    if (!all)
        return std::unexpected(all.error());
    std::vector<Destination> wanted;
    for (const Listener& listener : to)
        if (ports.contains(listener.port) && !flips.contains(listener.port))
            wanted.push_back({listener.port, listener});
    for (const auto& [port, target] : flips) {
        std::size_t found = 0;
        for (const Listener& listener : ports.contains(target) ? to : *all)
            if (listener.port == target) {
                wanted.push_back({port, listener});
                ++found;
            }
        if (found == 0 && all_must_listen)
            return failure(
                Exit::failed,
                fmt::format("nobody listens on port {}, to which port {} is to be flipped", target, port));
    }
    std::set<std::uint64_t> own;
    for (const Listeners* listeners : {&to, &gone})
        for (const Listener& listener : *listeners)
            own.insert(listener.cookie);
    // A port that a person flips is flipped whoever listens there.
    std::erase_if(*all, [&](const Listener& l) { return own.contains(l.cookie) || flips.contains(l.port); });
    const auto rules = make_steer_rules(wanted, *all);
    if (!rules)
        return std::unexpected(rules.error());
    return steering_.steer(*rules);
}

Result<void> Steerer::steer(const Listeners& to, const PortSet& ports, const Listeners& gone) {
    return apply(flips_, to, ports, gone, false);
}

void Steerer::release() {
    if (flips_.empty())
        return steering_.release();
    if (const auto r = apply(flips_, {}, {}, {}, false); !r) {
        spdlog::error("what was flipped goes by the kernel's own rules from now on: {}", r.error().message);
        flips_.clear();
        steering_.release();
    }
}

Result<void> Steerer::flip(const PortFlips& flips) {
    PortFlips next = flips;
    next.insert(flips_.begin(), flips_.end());
    if (const auto r = apply(next, {}, {}, {}, true); !r)
        return r;
    flips_ = std::move(next);
    return {};
}

Result<void> Steerer::clear(const PortSet& ports) {
    PortFlips next;
    if (!ports.empty())
        std::ranges::copy_if(flips_, std::inserter(next, next.end()),
                             [&](const auto& flip) { return !ports.contains(flip.first); });
    for (const std::uint16_t port : ports)
        if (!flips_.contains(port))
            return failure(Exit::usage, fmt::format("port {} is not flipped", port));
    flips_ = std::move(next);
    release();
    return {};
}

nlohmann::json to_json(const Steerer& steerer) {
    nlohmann::json json = to_json(steerer.status());
    json["flips"] = nlohmann::json::object();
    for (const auto& [port, target] : steerer.flips())
        json["flips"][std::to_string(port)] = target;
    return json;
}

} // namespace syngate
