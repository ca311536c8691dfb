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
namespace {

// Socket activity has no event that tells of a new listener; a look is one dump of the listening sockets.
constexpr auto follow_every = std::chrono::milliseconds(200);

} // namespace

Result<void> Steerer::apply(const PortFlips& flips, const Reload& reload, bool all_must_listen) {
    auto all = sockets_.listeners();
    if (!all)
        return std::unexpected(all.error());
    std::vector<Destination> wanted;
    for (const Listener& listener : reload.to)
        if (reload.ports.contains(listener.port) && !flips.contains(listener.port))
            wanted.push_back({listener.port, listener});
    std::set<std::uint64_t> flipped_to;
    for (const auto& [port, target] : flips) {
        std::size_t found = 0;
        for (const Listener& listener : reload.ports.contains(target) ? reload.to : *all)
            if (listener.port == target) {
                wanted.push_back({port, listener});
                flipped_to.insert(listener.cookie);
                ++found;
            }
        if (found == 0 && all_must_listen)
            return failure(
                Exit::failed,
                fmt::format("nobody listens on port {}, to which port {} is to be flipped", target, port));
    }
    std::set<std::uint64_t> own;
    for (const Listeners* listeners : {&reload.to, &reload.gone})
        for (const Listener& listener : *listeners)
            own.insert(listener.cookie);
    // A port that a person flips is flipped whoever listens there.
    std::erase_if(*all, [&](const Listener& l) { return own.contains(l.cookie) || flips.contains(l.port); });
    const auto rules = make_steer_rules(wanted, *all);
    if (!rules)
        return std::unexpected(rules.error());
    const auto r = steering_.steer(*rules);
    if (r)
        flipped_to_ = std::move(flipped_to);
    return r;
}

void Steerer::set_flips(PortFlips flips) {
    flips_ = std::move(flips);
    follower_.enable(!flips_.empty());
}

Result<void> Steerer::steer(const Listeners& to, const PortSet& ports, const Listeners& gone) {
    Reload reload{to, ports, gone};
    const auto r = apply(flips_, reload, false);
    if (r)
        reload_ = std::move(reload);
    return r;
}

void Steerer::release() {
    reload_ = {};
    if (flips_.empty())
        return steering_.release();
    if (const auto r = apply(flips_, reload_, false); !r) {
        spdlog::warn("what is flipped is looked at again soon: {}", r.error().message);
        flipped_to_ = {0}; // no socket's cookie: the next look finds a difference
    }
}

Result<void> Steerer::follow_on(Loop& loop, std::function<bool()> paused) {
    auto follower = loop.every(follow_every, [this, paused = std::move(paused)] {
        if (!paused())
            follow();
    });
    if (!follower)
        return std::unexpected(follower.error());
    follower_ = std::move(*follower);
    follower_.enable(!flips_.empty());
    return {};
}

void Steerer::follow() {
    if (flips_.empty())
        return;
    const auto all = sockets_.listeners();
    if (!all)
        return;
    std::set<std::uint64_t> now;
    for (const auto& [port, target] : flips_)
        for (const Listener& listener : reload_.ports.contains(target) ? reload_.to : *all)
            if (listener.port == target)
                now.insert(listener.cookie);
    if (now == flipped_to_)
        return;
    if (const auto r = apply(flips_, reload_, false); !r)
        spdlog::debug("what is flipped is looked at again soon: {}", r.error().message);
}

PortSet Steerer::fronts_of(const PortSet& targets) const {
    PortSet fronts;
    for (const auto& [port, target] : flips_)
        if (targets.contains(target))
            fronts.insert(port);
    return fronts;
}

Result<void> Steerer::flip(const PortFlips& flips) {
    PortFlips next = flips;
    next.insert(flips_.begin(), flips_.end());
    if (const auto r = apply(next, reload_, true); !r)
        return r;
    set_flips(std::move(next));
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
    set_flips(std::move(next));
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
