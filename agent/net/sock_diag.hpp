// SPDX-License-Identifier: GPL-2.0-or-later
// What the kernel says about this network namespace's TCP sockets.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"

#include <array>
#include <cstdint>
#include <memory>
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
};

// A connection in SYN_RECV: its final ACK, or under TCP_DEFER_ACCEPT its first data, is awaited.
struct HalfOpen {
    std::uint16_t port = 0;        // local, host byte order
    std::uint32_t retransmits = 0; // of the SYN-ACK
    Duration age{}; // lower bound, from the retransmission timer (the kernel's first timeout is 1 s)
};

// An interface so that the reload protocol can be tested without a kernel.
class Sockets {
public:
    virtual ~Sockets() = default;
    virtual Result<std::vector<Listener>> listeners() = 0;
    virtual Result<std::vector<HalfOpen>> half_open(const PortSet& local_ports) = 0;
    // Connections in ESTABLISHED, CLOSE_WAIT or FIN_WAIT whose local port is one of these.
    virtual Result<std::size_t> connected(const PortSet& local_ports) = 0;
};

// By NETLINK_SOCK_DIAG. A dump that the kernel reports as interrupted is asked again.
Result<std::unique_ptr<Sockets>> open_sock_diag();

} // namespace syngate
