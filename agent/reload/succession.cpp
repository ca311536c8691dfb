// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/succession.hpp"

#include <spdlog/spdlog.h>

namespace syngate {
namespace {

constexpr auto succession_look_every = std::chrono::milliseconds(1);
constexpr Duration ask_successor_every = std::chrono::milliseconds(200);

std::unique_ptr<Succession> gap(const Error& why) {
    spdlog::warn("connections may be refused until the successor's server listens: {}", why.message);
    return nullptr;
}

} // namespace

Succession::Succession(Loop& loop, Sockets& sockets, SuccessionOptions options, Listeners before,
                       ClosedGate closed)
    : loop_(loop), sockets_(sockets), options_(std::move(options)),
      handover_(std::move(before), options_.ports, options_.settle), closed_(std::move(closed)) {}

std::unique_ptr<Succession> Succession::begin(Loop& loop, Gate& gate, Sockets& sockets,
                                              const SuccessionOptions& options) {
    sockets.prepare();
    auto before = sockets.listeners();
    if (!before)
        return gap(before.error());
    if (const auto r = gate.stage(options.ports, options.policy); !r)
        return gap(r.error());
    auto closed = ClosedGate::close(loop, gate, options.lease);
    if (!closed)
        return gap(closed.error());
    DrainOptions drain_options = options.drain;
    drain_options.cancelled = options.cancelled;
    if (const auto r = drain(loop, sockets, options.ports, cookies_of(*before, options.ports), drain_options);
        !r)
        spdlog::warn("connections that the server has not accepted may be reset: {}", r.error().message);
    return std::unique_ptr<Succession>(
        new Succession(loop, sockets, options, std::move(*before), std::move(*closed)));
}

void Succession::finish() {
    bool alone = false;
    Time ask_at = Clock::now() + ask_successor_every;
    const auto over = [&] {
        if (options_.cancelled())
            return true;
        if (const auto now = sockets_.listeners(); now && (handover_.look(*now) || handover_.has_settled()))
            return true;
        if (Clock::now() >= ask_at) {
            alone = !options_.successor_lives();
            ask_at = Clock::now() + ask_successor_every;
        }
        return alone;
    };
    const bool in_time = loop_.run_until(over, Clock::now() + options_.timeout, succession_look_every);
    const Window window = closed_.open();
    const auto text = fmt::format("the gate was closed for {}: {} parked, {} replayed",
                                  format_duration(window.length), window.parked, window.replayed);
    if (alone)
        spdlog::error("the agent that waited for the ports has gone, and nobody listens; {}", text);
    else if (!in_time)
        spdlog::error("the successor's server does not listen within {}; {}",
                      format_duration(options_.timeout), text);
    else
        spdlog::info("a successor serves; {}", text);
}

} // namespace syngate
