// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/drain.hpp"

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

    if (options.finish > Duration::zero())
        loop.run_until([&] { return sockets.connected(ports).value_or(0) == 0 || options.cancelled(); },
                       Clock::now() + options.finish, finish_look_every);
    return report;
}

} // namespace syngate
