// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel says about this network namespace's TCP sockets.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace syngate {

struct Listener {
    bool ipv6 = false;
    std::array<std::uint8_t, 16> address{}; // network byte order; IPv4 in the first four bytes
    std::uint16_t port = 0;                 // host byte order
    std::uint32_t inode = 0;                // as in /proc/PID/fd: socket:[inode]
    std::uint64_t cookie = 0;               // never reused while the kernel runs
    std::uint32_t accept_queue = 0;         // connections that wait for accept()
    std::uint32_t backlog = 0;              // the queue's limit
    std::uint32_t uid = 0;                  // who made it
    std::uint32_t device = 0;               // index of the one interface that it is bound to; 0: to none
    bool ipv6_only = false;                 // false with ipv6: what comes over IPv4 is its own as well
    std::optional<bool> transparent = {};   // IP_TRANSPARENT; not told by kernels before 5.10
};

// A connection in SYN_RECV: its final ACK, or under TCP_DEFER_ACCEPT its first data, is awaited.
struct HalfOpen {
    std::uint16_t port = 0;        // local, host byte order
    std::uint32_t retransmits = 0; // of the SYN-ACK
    Duration age{}; // lower bound, from the retransmission timer (the kernel's first timeout is 1 s)
};

// Connections that a listening server still owes something when it closes.
struct Pending {
    std::size_t half_open = 0; // worth waiting for: young enough that their client is likely there
    std::size_t queued = 0;    // in the accept queue
};

// An interface so that the reload protocol can be tested without a kernel.
class Sockets {
public:
    virtual ~Sockets() = default;
    virtual Result<std::vector<Listener>> listeners() = 0;
    // Does beforehand, in some tens of milliseconds, what the first pending() would do.
    virtual void prepare() {}
    virtual Result<std::vector<HalfOpen>> half_open(const PortSet& local_ports) = 0;
    // Connections in ESTABLISHED, CLOSE_WAIT or FIN_WAIT whose local port is one of these. `among`: only
    // those with one of these inodes; nullptr: all.
    virtual Result<std::size_t> connected(const PortSet& local_ports,
                                          const std::set<std::uint32_t>* among) = 0;
    // Of these listeners (by cookie), which listen on these ports. Half-open connections older than
    // `handshake` do not count. Here by half_open() and listeners().
    virtual Result<Pending> pending(const PortSet& local_ports, const std::set<std::uint64_t>& listeners,
                                    Duration handshake);

protected:
    Result<std::size_t> queued_in(const std::set<std::uint64_t>& listeners);
};

// By NETLINK_SOCK_DIAG. A dump that the kernel reports as interrupted is asked again. pending() asks a
// BPF iterator where the kernel and the capabilities (CAP_PERFMON) allow one: it does not walk the table of
// all connections, and there "younger than 1 s" stands for a handshake time below that.
Result<std::unique_ptr<Sockets>> open_sock_diag();

} // namespace syngate
