// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/cover.hpp"

#include "reload/closed_gate.hpp"
#include "reload/handover.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>

namespace syngate {
namespace {

constexpr auto listen_look_every = std::chrono::microseconds(200);

// A person's Ctrl-C and a manager's SIGTERM are for the command; the gate opens when it has ended. Before and
// after the command they are for us: no more waiting.
Result<std::vector<Source>> forward_signals(Loop& loop, const pid_t& command, bool& give_up) {
    std::vector<Source> sources;
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) {
        auto source = loop.on_signal(signal, [&command, &give_up, signal](const auto&) {
            if (command > 0)
                ::kill(command, signal);
            else
                give_up |= signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
        });
        if (!source)
            return std::unexpected(source.error());
        sources.push_back(std::move(*source));
    }
    return sources;
}

} // namespace

Result<Covered> cover(Loop& loop, Gate& gate, Sockets& sockets, Children& children, const Argv& command,
                      const CoverOptions& options) {
    Covered covered;
    covered.outcome.action = "exec";
    covered.outcome.gated = options.ports;
    StepTimer timer(covered.outcome);

    if (const auto r = children.can_spawn(command); !r)
        return std::unexpected(r.error()); // found out with the gate still open
    pid_t pid = 0;
    bool give_up = false;
    const auto signals = forward_signals(loop, pid, give_up);
    if (!signals)
        return std::unexpected(signals.error());
    sockets.prepare();
    const auto before = sockets.listeners();
    if (!before)
        return std::unexpected(before.error());
    if (const auto r = gate.stage(options.ports, options.policy); !r)
        return std::unexpected(r.error());
    timer.done("stage");
    auto closed = ClosedGate::close(loop, gate, options.lease);
    if (!closed)
        return std::unexpected(closed.error());
    timer.done("close");

    DrainOptions drain_options = options.drain;
    drain_options.cancelled = [&give_up] { return give_up; };
    const auto drained =
        drain(loop, sockets, options.ports, cookies_of(*before, options.ports), drain_options);
    if (!drained)
        return std::unexpected(drained.error());
    covered.outcome.half_open = drained->half_open;
    covered.outcome.queued = drained->queued;
    covered.outcome.left = drained->left;
    timer.done("drain");
    if (give_up)
        return failure(Exit::failed, "given up before the command was started, the gate is open again");

    SpawnOptions spawn;
    spawn.own_group = false; // the command is in the foreground, as without us
    const auto started = children.spawn(command, spawn);
    if (!started)
        return std::unexpected(started.error());
    pid = *started;
    loop.run_until([&] { return children.status(pid).has_value(); }, Time::max());
    covered.command = *children.status(pid);
    pid = 0;
    timer.done("command", covered.command.text());

    Handover handover(*before, options.ports, options.settle);
    const auto may_open = [&] {
        const auto now = sockets.listeners();
        return now && handover.look(*now);
    };
    // A command that failed will not bring up what does not listen now: nobody is kept waiting for it.
    const bool failed = covered.command.as_exit_code() != 0;
    const Duration patience = failed ? Duration::zero() : options.wait_timeout;
    loop.run_until([&] { return may_open() || give_up; }, Clock::now() + patience, listen_look_every);
    const bool listening = handover.state() != Handover::State::not_everywhere;
    timer.done("listen",
               handover.state() == Handover::State::old_ones_too ? "on sockets that were there before" : "");
    covered.outcome.window = closed->open();
    timer.done("open");
    if (give_up && !listening) {
        covered.outcome.exit = Exit::failed;
        covered.outcome.message =
            fmt::format("given up while nothing listened on all of {}", format_ports(options.ports));
    } else if (!listening) {
        covered.outcome.exit = Exit::failed;
        covered.outcome.message =
            failed ? fmt::format("the command {} and not all of {} listen", covered.command.text(),
                                 format_ports(options.ports))
                   : fmt::format("nothing listens on all of {} within {} after the command",
                                 format_ports(options.ports), format_duration(options.wait_timeout));
    } else if (covered.outcome.window.lease_lost) {
        covered.outcome.message =
            "the gate had opened by itself before the swap was complete; see --max-window";
    }
    return covered;
}

} // namespace syngate
