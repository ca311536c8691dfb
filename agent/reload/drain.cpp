// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/drain.hpp"

#include <algorithm>
#include <utility>

namespace syngate {
namespace {

constexpr auto finish_look_every = std::chrono::milliseconds(1);

} // namespace

Result<DrainReport> drain(Loop& loop, Sockets& sockets, const PortSet& ports,
                          const std::set<std::uint64_t>& listeners, const DrainOptions& options) {
    DrainReport report;
    Result<Pending> pending = sockets.pending(ports, listeners, options.handshake);
    if (!pending)
        return std::unexpected(pending.error());
    report.half_open = pending->half_open;
    report.queued = pending->queued;

    const Time began = Clock::now();
    bool first = true;
    loop.run_until(
        [&] {
            if (!std::exchange(first, false))
                pending = sockets.pending(ports, listeners, options.handshake);
            return !pending || pending->half_open + pending->queued == 0 || options.cancelled();
        },
        began + options.handshake, options.look_every);
    if (!pending)
        return std::unexpected(pending.error());
    report.left = pending->half_open + pending->queued;

    const auto open = [&] {
        if (!options.finishing)
            return sockets.connected(ports, nullptr).value_or(0);
        const auto its = options.finishing();
        return sockets.connected(ports, its ? &*its : nullptr).value_or(0);
    };
    if (options.finish > Duration::zero())
        loop.run_until([&] { return open() == 0 || options.cancelled(); }, Clock::now() + options.finish,
                       std::max<Duration>(finish_look_every, options.look_every));
    return report;
}

} // namespace syngate
