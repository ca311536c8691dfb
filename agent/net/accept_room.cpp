// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/accept_room.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <spdlog/spdlog.h>
#include <thread>
#include <utility>

namespace syngate {

std::uint64_t AcceptRoom::take(std::uint64_t most) {
    const Time now = Clock::now();
    if (!give_up_)
        give_up_ = now + patience;
    while (left_ == 0 && !unlimited_) {
        const auto room = look();
        unlimited_ = !room || Clock::now() >= *give_up_;
        left_ = room.value_or(0);
        if (left_ == 0 && !unlimited_)
            std::this_thread::sleep_for(look_every); // nothing tells when a connection is accepted
    }
    if (unlimited_)
        return most;
    const std::uint64_t taken = std::min(most, left_);
    left_ -= taken;
    return taken;
}

std::optional<std::uint64_t> AcceptRoom::look() const {
    if (!sockets_)
        return {};
    const auto listeners = sockets_->listeners();
    if (!listeners)
        return {};
    struct Queue {
        std::uint64_t limit = 0, filled = 0;
    };
    std::map<std::pair<std::uint16_t, bool>, Queue> queues; // of those that share a port and a family
    std::set<std::uint64_t> cookies;
    for (const Listener& listener : *listeners) {
        if (!ports_.contains(listener.port))
            continue;
        Queue& queue = queues[{listener.port, listener.ipv6}];
        queue.limit += std::max(listener.backlog / 2, 1U);
        queue.filled += listener.accept_queue;
        cookies.insert(listener.cookie);
    }
    if (queues.empty())
        return {};
    // A half-open connection will need its place as well, in a queue of the same length until then.
    const auto pending = sockets_->pending(ports_, cookies, Duration::max());
    if (!pending)
        return {};
    std::uint64_t room = UINT64_MAX;
    for (const auto& [key, queue] : queues) {
        const std::uint64_t filled = queue.filled + pending->half_open;
        room = std::min(room, queue.limit - std::min(queue.limit, filled));
    }
    return room;
}

} // namespace syngate
