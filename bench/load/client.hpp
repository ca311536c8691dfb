// SPDX-License-Identifier: GPL-2.0-or-later
// An open-loop load client: connections start at fixed instants, whatever became of the earlier ones.
//
// Every request has a TCP connection of its own: connect, "GET / HTTP/1.0", read to EOF. Latency counts from
// the intended start, so neither a slow server nor a late generator hides behind it (no coordinated
// omission).
//
// Ports: the server of an HTTP/1.0 request closes first, so TIME_WAIT is on its side and the client's port is
// free as soon as the connection ends; one address lasts for any rate for any time. The server's side may
// hold many TIME_WAIT sockets then; `reset_close` ends a connection by RST once the answer is whole, which
// leaves none on either side. Connections that failed are always ended by RST. Only the connections open at
// one time need ports: the range of net.ipv4.ip_local_port_range for each pair of --from and --to.
#pragma once

#include "base/result.hpp"
#include "load/endpoint.hpp"
#include "load/report.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

namespace syngate::load {

struct Progress {
    Duration since_start;
    std::uint64_t started;
    std::uint64_t ok;
    std::uint64_t failed;
    std::uint64_t open;
    Duration max_latency; // so far
};

struct Options {
    std::vector<Endpoint> to; // taken in turn; at least one
    std::vector<Endpoint>
        from;           // taken in turn among those of the destination's family; none: the kernel chooses
    double rate = 1000; // starts a second, evenly spaced
    Duration duration = std::chrono::seconds(10);
    Duration timeout = std::chrono::seconds(10); // of a connection, from its intended start
    bool reset_close = false;
    int stop_fd = -1; // EOF there ends the schedule; what it says is read and thrown away
    const std::atomic<bool>* stop = nullptr; // the same for a signal handler, which must interrupt the wait
    std::function<void(const Progress&)> progress; // at the start and then each second; in run's thread
};

// Runs the schedule, waits for what is open then (at most the timeout), and reports. Raises RLIMIT_NOFILE of
// the process to what rate and timeout need, as far as it may. Errors: Exit::usage, or what epoll lacks.
Result<Report> run(const Options& options);

} // namespace syngate::load
