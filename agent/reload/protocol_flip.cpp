// SPDX-License-Identifier: GPL-2.0-or-later
// The steps of the protocol that steer instead of closing the gate. New connections are pinned to the old
// generation's sockets before a new one starts, and go to the new one's in one step when that is ready.
#include "reload/protocol_run.hpp"
#include "reload/steerer.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

constexpr auto flip_look_every = std::chrono::microseconds(500);

} // namespace

// Flip goes on without an error where hold can do instead: that is what auto means.
Result<void> Protocol::Run::cannot_flip(const Error& error) {
    if (p_.options_.flip == Flip::always)
        return failure(error.exit, "cannot flip: " + error.message, error.code);
    spdlog::warn("this reload goes behind a closed gate: {}", error.message);
    outcome_.message = "not flipped: " + error.message;
    return {};
}

Result<void> Protocol::Run::pin(const Listeners& old) {
    if (!p_.can_flip())
        return {};
    const PortSet ports = restricted(ports_of(old), p_.options_.ports);
    if (ports.empty())
        return {};
    // Nothing is steered that another agent has claimed meanwhile.
    if (const auto r = p_.options_.claim(ports); !r)
        return r;
    const auto r = p_.options_.steerer->steer(old, ports);
    timer_.done("pin");
    if (!r)
        return cannot_flip(r.error());
    pinned_ = true;
    return {};
}

Result<void> Protocol::Run::flip(const PortSet& ports, const Listeners& old, const Listeners& fresh) {
    const auto r = p_.options_.steerer->steer(fresh, ports, old);
    if (!r)
        return r;
    flipped_ = true;
    outcome_.flipped = ports;
    timer_.done("flip");
    return {};
}

void Protocol::Run::flip_back(const Listeners& old) {
    if (!flipped_)
        return;
    flipped_ = false;
    outcome_.flipped.clear();
    if (const auto r = p_.options_.steerer->steer(old, restricted(ports_of(old), p_.options_.ports)); !r) {
        spdlog::error("cannot steer back to the old server: {}", r.error().message);
        unpin();
    }
}

void Protocol::Run::unpin() {
    if (pinned_)
        p_.options_.steerer->release();
    pinned_ = false;
}

// Its new workers may have other sockets than the old ones; those are closed with their queues when the old
// workers are told to go, a while after the new ones are there.
Result<void> Protocol::Run::signal_steered(const Listeners& old,
                                           const std::map<pid_t, std::set<std::uint32_t>>& before) {
    const Generation server = *p_.current_;
    const PortSet ports = restricted(ports_of(old), p_.options_.ports);
    p_.server_.tell(server, p_.server_.recipe().reload_signal);

    // What processes hold that were not there before.
    const auto of_new_workers = [&]() -> Listeners {
        const auto now = p_.server_.holders(server);
        const auto listeners = p_.server_.listeners(server);
        if (!now || !listeners)
            return {};
        std::set<std::uint32_t> inodes;
        for (const auto& [process, held] : *now)
            if (!before.contains(process))
                inodes.insert(held.begin(), held.end());
        Listeners fresh;
        std::ranges::copy_if(*listeners, std::back_inserter(fresh),
                             [&](const Listener& l) { return inodes.contains(l.inode); });
        return fresh;
    };
    Listeners fresh;
    const auto expected = addresses_of(old, ports);
    Time changed = Clock::now();
    const auto waited = wait(
        [&] {
            Listeners now = of_new_workers();
            if (cookies_of(now, ports) != cookies_of(fresh, ports))
                changed = Clock::now();
            fresh = std::move(now);
            // A configuration with fewer addresses never has them all.
            const bool settled = !fresh.empty() && Clock::now() - changed >= p_.options_.settle;
            return p_.server_.exited(server) || settled ||
                   std::ranges::includes(addresses_of(fresh), expected);
        },
        p_.options_.swap_timeout, flip_look_every);
    timer_.done("start", waited == Waited::timed_out ? "no new process seen" : "");
    if (waited == Waited::done && !p_.server_.exited(server)) {
        const Listeners going = without(old, fresh);
        const PortSet changing = restricted(ports_of(going), ports);
        if (!changing.empty()) {
            if (const auto r = flip(ports, old, fresh); !r)
                outcome_.message = "not flipped: " + r.error().message;
            else if (const auto drained = drain_old(changing, cookies_of(going, changing), false); !drained)
                return drained;
        }
    }
    // The new workers being there, the old ones go.
    const auto r = wait_until_reloaded(server, before, {},
                                       fresh.empty() ? p_.options_.settle : p_.options_.swap_timeout);
    unpin();
    return r;
}

// New beside old, each on the port that it was given. The clients' port is flipped all the time, so what
// fails here must leave it flipped to whoever serves.
Result<void> Protocol::Run::blue_green() {
    if (const auto r = check(); !r)
        return r;
    const Generation old = *p_.current_;
    const PortSet front{p_.options_.front};
    const std::uint16_t old_port = p_.server_.backing_port(old);
    const auto before = p_.server_.listeners(old);
    if (!before)
        return std::unexpected(before.error());
    const auto fresh = p_.server_.start(true);
    if (!fresh)
        return std::unexpected(fresh.error());
    const std::uint16_t new_port = p_.server_.backing_port(*fresh);
    const auto give_up = [&](const Result<void>& r) {
        abandon(*fresh);
        return r;
    };
    std::set<ListenAddress> where = addresses_of(*before, {old_port}), expected;
    for (ListenAddress at : where) {
        at.port = new_port;
        expected.insert(at);
    }
    if (const auto r = wait_until_listening(*fresh, {new_port}, expected); !r)
        return give_up(std::unexpected(r.error()));
    timer_.done("start");
    if (const auto r = p_.options_.steerer->flip({{p_.options_.front, new_port}}); !r)
        return give_up(r);
    flipped_ = true;
    fresh_ = *fresh;
    outcome_.flipped = front;
    timer_.done("flip");

    // Of a connection that was steered the local port is the clients'; of one that was led by rewriting, its
    // server's own.
    const auto going = cookies_of(*before, {old_port});
    auto drained = drain_old({p_.options_.front, old_port}, going, !p_.server_.recipe().graceful);
    if (const auto status = p_.server_.exited(*fresh); drained && status)
        drained = failure(Exit::failed, fmt::format("the new server {} after it listened", status->text()));
    if (!drained) {
        outcome_.flipped.clear();
        if (const auto back = p_.options_.steerer->flip({{p_.options_.front, old_port}}); !back)
            spdlog::error("cannot steer back to the old server: {}", back.error().message);
        return give_up(drained);
    }
    p_.server_.tell(old, p_.server_.recipe().release_signal);
    p_.retiring_.push_back(old);
    p_.current_ = p_.latest_ = *fresh;
    return wait_until_released(old, going);
}

} // namespace syngate
