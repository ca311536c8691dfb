// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/accept_room.hpp"

#include <algorithm>
#include <spdlog/spdlog.h>
#include <thread>
#include <utility>

namespace syngate {

AcceptRoom::AcceptRoom(Sockets* sockets, PortSet ports, std::uint64_t waiting, Time lease_end)
    : sockets_(sockets), ports_(std::move(ports)), waiting_(waiting),
      until_(std::min(lease_end - lease_margin, Clock::now() + patience)),
      limited_(sockets != nullptr && waiting > 1) {}

std::uint64_t AcceptRoom::take(std::uint64_t most) {
    while (limited_ && left_ == 0) {
        look();
        if (!limited_ || left_ > 0)
            break;
        if (Clock::now() + look_every >= until_)
            stop_waiting();
        else
            std::this_thread::sleep_for(look_every); // nothing tells when a connection is accepted
    }
    const std::uint64_t taken = limited_ ? std::min(most, left_) : most;
    left_ -= limited_ ? taken : 0;
    let_go_ += taken;
    recent_ += taken;
    latest_ = Clock::now();
    return taken;
}

void AcceptRoom::stop_waiting() {
    spdlog::warn("the accept queues of {} have had no room in time for what was held: {} of {} SYNs were let "
                 "go as they "
                 "found room, the rest at once; clients whose SYN is dropped try again after 1 s",
                 format_ports(ports_), let_go_, waiting_);
    limited_ = false;
}

// Half of each queue is for those who come meanwhile.
Result<std::map<AcceptRoom::Group, AcceptRoom::Queue>> AcceptRoom::queues() {
    const auto listeners = sockets_->listeners();
    if (!listeners)
        return std::unexpected(listeners.error());
    std::map<Group, Queue> queues;
    for (const Listener& listener : *listeners) {
        const Group group{listener.address, listener.device, listener.port, listener.ipv6};
        if (!ports_.contains(listener.port) || left_out_.contains(group))
            continue;
        Queue& queue = queues[group];
        queue.limit += std::max(listener.backlog / 2, 1U);
        queue.filled += listener.accept_queue;
        cookies_.insert(listener.cookie);
    }
    return queues;
}

void AcceptRoom::look() {
    // First, since a handshake that has just ended is in the accept queue by then.
    std::uint64_t under_way = 0;
    if (Clock::now() - latest_ >= handshake)
        recent_ = 0;
    if (recent_ > 0) {
        const auto pending = sockets_->pending(ports_, cookies_, Duration::max());
        if (!pending) {
            limited_ = false;
            return;
        }
        under_way = std::min<std::uint64_t>(pending->half_open, recent_); // the others are not ours
    }
    auto all = queues();
    if (let_go_ == 0 && all)
        for (const auto& [group, queue] : *all) // nobody accepts there, and what is held may not go there
            if (queue.filled >= queue.limit)
                left_out_.insert(group);
    std::uint64_t room = UINT64_MAX;
    if (all)
        for (const auto& [group, queue] : *all)
            if (!left_out_.contains(group))
                room = std::min(room, queue.limit - std::min(queue.limit, queue.filled + under_way));
    limited_ = room < waiting_ - std::min(waiting_, let_go_);
    left_ = room;
}

} // namespace syngate
