// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "event/loop.hpp"
#include "net/sock_diag.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>

namespace syngate {

struct DrainOptions {
    // A half-open connection older than this is not waited for: its client is gone, or it is held
    // back on purpose (TCP_DEFER_ACCEPT). Also the longest that a drain takes.
    Duration handshake = std::chrono::milliseconds(500);
    // How long open connections may go on before a server that does not let them finish is stopped; 0: not at
    // all.
    Duration finish = Duration::zero();
    // Whose open connections those are: the sockets (inodes) of the server that will be stopped. Empty, or an
    // error: all on these ports.
    std::function<Result<std::set<std::uint32_t>>()> finishing = {};
    // Clients wait at a closed gate: as often as a look costs little against the wait for a reply.
    Duration look_every = std::chrono::microseconds(200);
    std::function<bool()> cancelled = [] { return false; };
};

struct DrainReport {
    std::size_t half_open = 0; // when it began
    std::size_t queued = 0;
    std::size_t left = 0; // not waited for any longer
};

// With new connections kept away from these listeners: waits until no handshake to these ports is half done
// and the accept queues of these listeners (by cookie) are empty.
Result<DrainReport> drain(Loop& loop, Sockets& sockets, const PortSet& ports,
                          const std::set<std::uint64_t>& listeners, const DrainOptions& options);

} // namespace syngate
