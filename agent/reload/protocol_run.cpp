// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/protocol_run.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

// In the window clients wait; before it nobody does.
constexpr auto in_window = std::chrono::microseconds(200);
constexpr auto at_leisure = std::chrono::milliseconds(5);
// A server of which nothing is known may bind its second port long after its first.
constexpr auto unknown_settle = std::chrono::seconds(2);

} // namespace

Protocol::Run::Run(Protocol& protocol, std::string action) : p_(protocol), timer_(outcome_) {
    outcome_.action = std::move(action);
}

Outcome Protocol::Run::finish(const Result<void>& result) {
    if (closed_)
        open(); // a step failed: whichever server works is reached again at once
    unpin();
    if (!result) {
        outcome_.exit = result.error().exit;
        outcome_.message = result.error().message;
    }
    return std::move(outcome_);
}

Protocol::Run::Waited Protocol::Run::wait(const std::function<bool()>& done, Duration at_most,
                                          Duration look_every) const {
    bool cancelled = false;
    const bool reached = p_.loop_.run_until(
        [&] {
            cancelled = p_.options_.cancelled();
            return cancelled || done();
        },
        Clock::now() + at_most, look_every);
    return cancelled ? Waited::cancelled : reached ? Waited::done : Waited::timed_out;
}

Result<void> Protocol::Run::stopped(Waited waited, const std::string& what, Duration after) const {
    if (waited == Waited::done)
        return {};
    if (waited == Waited::cancelled)
        return failure(Exit::failed, "given up, the agent is stopping");
    return failure(Exit::failed, fmt::format("{} within {}", what, format_duration(after)));
}

Result<void> Protocol::Run::check() {
    auto r = p_.server_.check(Clock::now() + p_.options_.check_timeout, p_.options_.cancelled);
    timer_.done("check");
    if (!r)
        return r;
    return stopped(p_.options_.cancelled() ? Waited::cancelled : Waited::done, "", {});
}

// Listening: on every port and wherever the old server did, or, where the configuration has changed that,
// somewhere with nothing new coming for a while.
Result<Listeners> Protocol::Run::wait_until_listening(Generation generation, const PortSet& ports,
                                                      const std::set<ListenAddress>& before) {
    Result<Listeners> result;
    std::set<ListenAddress> seen;
    std::set<std::uint64_t>
        given; // sockets on a port that the server was given, each of which is to be flipped to
    const bool is_given = p_.options_.front != 0;
    Time changed = Clock::now();
    // A graceful server is not ready before it has bound all that it will bind; of others nobody knows.
    const Duration settle = before.empty() || p_.server_.recipe().graceful || p_.options_.front != 0
                                ? p_.options_.settle
                                : std::max<Duration>(p_.options_.settle, unknown_settle);
    const auto waited = wait(
        [&] {
            if (const auto status = p_.server_.exited(generation); status) {
                result = failure(Exit::failed,
                                 fmt::format("the new server {} before it listened", status->text()));
                return true;
            }
            result = p_.server_.listeners(generation);
            if (!result)
                return true;
            std::set<ListenAddress> now = addresses_of(*result);
            std::set<std::uint64_t> now_given =
                is_given ? cookies_of(*result, ports) : std::set<std::uint64_t>{};
            if (now != seen || now_given != given)
                changed = Clock::now();
            seen = std::move(now);
            given = std::move(now_given);
            const bool on_ports = !ports.empty() && std::ranges::includes(ports_of(*result), ports);
            const bool all = !is_given && on_ports && std::ranges::includes(seen, before);
            const bool settled = !seen.empty() && (on_ports || !is_given) && Clock::now() - changed >= settle;
            return (all || settled) && p_.server_.is_ready(generation);
        },
        p_.options_.start_timeout, closed_ ? in_window : at_leisure);
    if (!result)
        return result;
    if (const auto r = stopped(waited, "the new server does not listen", p_.options_.start_timeout); !r)
        return std::unexpected(r.error());
    return result;
}

Result<void> Protocol::Run::close(const PortSet& listening, const Listeners& listeners) {
    // Clients whose port is flipped to one of these send their SYNs to that.
    PortSet ports = listening;
    if (p_.options_.steerer)
        ports.merge(p_.options_.steerer->fronts_of(listening));
    // Nothing is gated that another agent has claimed meanwhile.
    if (const auto r = p_.options_.claim(restricted(ports_of(listeners), p_.options_.ports)); !r)
        return r;
    // Staging takes its time for many ports and is not part of the window.
    if (const auto r = p_.gate_.stage(ports, p_.options_.policy); !r)
        return r;
    timer_.done("stage");
    auto closed = ClosedGate::close(p_.loop_, p_.gate_, p_.options_.lease);
    if (!closed)
        return std::unexpected(closed.error());
    closed_.emplace(std::move(*closed));
    outcome_.gated = ports;
    timer_.done("close");
    return {};
}

Result<void> Protocol::Run::drain_old(const PortSet& ports, const std::set<std::uint64_t>& listeners,
                                      bool finish) {
    DrainOptions options = p_.options_.drain;
    options.cancelled = [this] {
        return p_.options_.cancelled() || (fresh_ && p_.server_.exited(*fresh_).has_value());
    };
    if (!finish)
        options.finish = Duration::zero();
    if (flipped_) { // nobody waits, and the new server has connections to the same ports
        options.look_every = at_leisure;
        options.finishing = [this] { return p_.server_.sockets(*p_.current_); };
        if (options.finish > Duration::zero() && p_.server_.sockets(*p_.current_))
            options.finish = std::max(options.finish, p_.options_.swap_timeout);
    }
    auto report = drain(p_.loop_, p_.sockets_, ports, listeners, options);
    if (report) {
        outcome_.half_open = report->half_open;
        outcome_.queued = report->queued;
    }
    // With no gate closed nobody waits: a slow server may take its time to accept what is queued.
    const Time patience = Clock::now() + p_.options_.swap_timeout;
    options.finish = Duration::zero();
    while (flipped_ && report && report->left > 0 && Clock::now() < patience && !options.cancelled())
        report = drain(p_.loop_, p_.sockets_, ports, listeners, options);
    if (report)
        outcome_.left = report->left;
    timer_.done("drain", report ? "" : report.error().message);
    if (!report && !flipped_)
        return std::unexpected(report.error());
    // Who was sent to the new server has connections there, so there is no way back but a failure.
    if (flipped_)
        return {};
    // The last moment at which giving up leaves everything as it was.
    return stopped(p_.options_.cancelled() ? Waited::cancelled : Waited::done, "", {});
}

Protocol::Run::Waited Protocol::Run::insist(Generation generation, const std::function<bool()>& done,
                                            Duration at_most, const char* undone) const {
    auto waited = wait(done, at_most, closed_ ? Duration(in_window) : Duration(at_leisure));
    if (waited == Waited::timed_out) {
        spdlog::warn("the old server was told to go and has not {} within {}: it gets SIGTERM, then SIGKILL",
                     undone, format_duration(at_most));
        p_.server_.tell(generation, SIGTERM);
        waited = wait(done, std::chrono::seconds(1), in_window);
    }
    if (waited == Waited::timed_out) {
        p_.server_.kill(generation);
        waited = wait(done, std::chrono::seconds(5), in_window);
    }
    return waited;
}

// An old server that went on listening would be sent new connections beside the new one, for ever.
Result<void> Protocol::Run::wait_until_released(Generation old, const std::set<std::uint64_t>& cookies) {
    Result<void> result;
    const auto released = [&] {
        const auto all = p_.sockets_.listeners();
        if (!all) {
            result = std::unexpected(all.error());
            return true;
        }
        return std::ranges::none_of(*all, [&](const Listener& l) { return cookies.contains(l.cookie); });
    };
    const auto waited = insist(old, released, p_.options_.swap_timeout, "closed its listening sockets");
    timer_.done("swap");
    if (!result)
        return result;
    return stopped(waited, "the old server does not close its listening sockets", p_.options_.swap_timeout);
}

Result<void> Protocol::Run::wait_until_ended(Generation generation) {
    const auto waited = insist(
        generation, [&] { return p_.has_ended(generation); }, p_.options_.end_timeout, "ended");
    timer_.done("stop");
    return stopped(waited, "the old server does not end", p_.options_.end_timeout);
}

// A server that reloads itself shows it: other processes hold the listening sockets, or the sockets
// are others. One that shows nothing has settled when nothing has changed for a while.
Result<void> Protocol::Run::wait_until_reloaded(Generation generation,
                                                const std::map<pid_t, std::set<std::uint32_t>>& before,
                                                const std::set<ListenAddress>& expected, Duration at_most) {
    Result<void> result;
    const auto sockets_in = [](const std::map<pid_t, std::set<std::uint32_t>>& holders) {
        std::set<std::uint32_t> all;
        for (const auto& [process, inodes] : holders)
            all.insert(inodes.begin(), inodes.end());
        return all;
    };
    const auto turned_over = [&](const std::map<pid_t, std::set<std::uint32_t>>& now) {
        bool fresh = false;
        for (const auto& [process, inodes] : now) {
            const auto old = before.find(process);
            const bool is_old_worker = old != before.end() && !old->second.empty() && process != generation;
            if (is_old_worker && !inodes.empty())
                return false;
            fresh |= old == before.end() && !inodes.empty();
        }
        return fresh || sockets_in(now) != sockets_in(before);
    };
    const auto waited = wait(
        [&] {
            if (const auto status = p_.server_.exited(generation); status) {
                result =
                    failure(Exit::failed, fmt::format("the server {} while it reloaded", status->text()));
                return true;
            }
            const auto listeners = p_.server_.listeners(generation);
            const bool listening = listeners && std::ranges::includes(addresses_of(*listeners), expected);
            const auto now = p_.server_.holders(generation);
            return listening && now && turned_over(*now);
        },
        at_most, in_window);
    timer_.done("swap", waited == Waited::timed_out ? "no change seen" : "");
    if (waited == Waited::cancelled)
        return stopped(waited, "", {});
    return result;
}

// A new generation that is not wanted any more; nobody was sent to it but by chance of SO_REUSEPORT.
void Protocol::Run::abandon(Generation generation) const {
    p_.server_.kill(generation);
    p_.loop_.run_until([&] { return p_.server_.exited(generation).has_value(); },
                       Clock::now() + std::chrono::seconds(5), at_leisure);
    p_.server_.forget(generation);
}

void Protocol::Run::open() {
    // What is replayed meets the listeners of now also where its port is flipped to theirs.
    if (p_.options_.steerer)
        p_.options_.steerer->follow();
    outcome_.window = closed_->open();
    closed_.reset();
    timer_.done("open");
    if (outcome_.window.lease_lost)
        outcome_.message = "the gate had opened by itself before the swap was complete";
}

Result<void> Protocol::Run::start(const PortSet& ports, const std::set<ListenAddress>& before) {
    const auto generation = p_.server_.start(false);
    if (!generation)
        return std::unexpected(generation.error());
    if (const auto r = p_.gate_.complete(); !r) {
        abandon(*generation);
        return r;
    }
    const std::uint16_t given = p_.server_.backing_port(*generation);
    const auto listening = wait_until_listening(*generation, given ? PortSet{given} : ports, before);
    timer_.done("start");
    Result<void> r;
    if (!listening)
        r = std::unexpected(listening.error());
    else if (given)
        r = p_.options_.steerer->flip({{p_.options_.front, given}});
    if (!r) {
        if (closed_)
            open();
        if (p_.options_.cancelled())
            p_.current_ = p_.latest_ = *generation; // to be stopped like any other
        else if (!p_.server_.exited(*generation))
            abandon(*generation);
        return std::unexpected(r.error());
    }
    p_.current_ = p_.latest_ = *generation;
    return {};
}

Result<void> Protocol::Run::overlap() {
    if (const auto r = check(); !r)
        return r;
    const Generation old = *p_.current_;
    const auto before = p_.server_.listeners(old);
    if (!before)
        return std::unexpected(before.error());
    // First, so that nobody gets to a server that is not ready yet or is given up.
    if (const auto r = pin(*before); !r)
        return r;
    const auto fresh = p_.server_.start(true);
    if (!fresh)
        return std::unexpected(fresh.error());
    const auto give_up = [&](const Result<void>& r) {
        flip_back(*before);
        abandon(*fresh); // while the gate is closed: what is replayed must not meet its sockets
        if (closed_)
            open();
        return r;
    };
    // Not read a second time: a master that forks its worker and lets go of its sockets may show none.
    const auto after = wait_until_listening(*fresh, ports_of(*before), addresses_of(*before));
    if (!after)
        return give_up(std::unexpected(after.error()));
    timer_.done("start");

    const PortSet changing = restricted(changing_hands(*before, *after), p_.options_.ports);
    const Listeners going = without(*before, *after);
    if (!changing.empty()) {
        if (const auto r = take_over(changing, *before, *after); !r)
            return give_up(r);
        if (flipped_)
            fresh_ = *fresh;
        if (const auto r = drain_old(changing, cookies_of(going, changing), false); !r)
            return give_up(r);
    }
    if (const auto status = p_.server_.exited(*fresh); status)
        return give_up(
            failure(Exit::failed, fmt::format("the new server {} after it listened", status->text())));
    // From here on the new server is the one that serves.
    p_.server_.tell(old, p_.server_.recipe().release_signal);
    p_.retiring_.push_back(old);
    p_.current_ = p_.latest_ = *fresh;
    if (changing.empty())
        return {};
    const auto r = wait_until_released(old, cookies_of(going, changing));
    if (closed_)
        open();
    return r;
}

// By steering, else by closing the gate.
Result<void> Protocol::Run::take_over(const PortSet& ports, const Listeners& before, const Listeners& after) {
    if (pinned_) {
        const auto r = flip(ports, before, after);
        if (r)
            return r;
        if (const auto hold = cannot_flip(r.error()); !hold)
            return hold;
    }
    if (const auto r = close(ports, before); !r)
        return r;
    unpin(); // behind the closed gate
    return {};
}

Result<Listeners> Protocol::Run::cover(bool finish) {
    if (const auto r = check(); !r)
        return std::unexpected(r.error());
    auto listeners = p_.server_.listeners(*p_.current_);
    if (!listeners)
        return listeners;
    if (const auto r = close(restricted(ports_of(*listeners), p_.options_.ports), *listeners); !r)
        return std::unexpected(r.error());
    if (const auto r = drain_old(outcome_.gated, cookies_of(*listeners, outcome_.gated), finish); !r)
        return std::unexpected(r.error());
    return listeners;
}

Result<void> Protocol::Run::signal() {
    if (p_.can_flip()) {
        if (const auto r = check(); !r)
            return r;
        const auto listeners = p_.server_.listeners(*p_.current_);
        if (!listeners)
            return std::unexpected(listeners.error());
        const auto before = p_.server_.holders(*p_.current_);
        if (const auto r = before ? pin(*listeners) : cannot_flip(before.error()); !r)
            return r;
        if (pinned_)
            return signal_steered(*listeners, *before);
    }
    const auto listeners = cover(false);
    if (!listeners)
        return std::unexpected(listeners.error());
    const Generation server = *p_.current_;
    const auto before = p_.server_.holders(server);
    p_.server_.tell(server, p_.server_.recipe().reload_signal);
    const auto r = wait_until_reloaded(server, before.value_or(std::map<pid_t, std::set<std::uint32_t>>{}),
                                       addresses_of(*listeners, outcome_.gated), p_.options_.settle);
    open();
    return r;
}

Result<void> Protocol::Run::restart() {
    const auto listeners = cover(!p_.server_.recipe().graceful);
    if (!listeners)
        return std::unexpected(listeners.error());
    const PortSet gated = restricted(ports_of(*listeners), p_.options_.ports);
    const Generation old = *p_.current_;
    p_.server_.tell(old, p_.server_.recipe().release_signal);
    p_.current_.reset();
    p_.retiring_.push_back(old);
    if (const auto r = wait_until_ended(old); !r)
        return r;
    if (const auto r = start(gated, addresses_of(*listeners, gated)); !r)
        return failure(
            r.error().exit,
            fmt::format("the old server has ended and the new one does not serve: {}", r.error().message));
    open();
    return {};
}

} // namespace syngate
