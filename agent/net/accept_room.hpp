// SPDX-License-Identifier: GPL-2.0-or-later
// SYNs that were held are let go all at once, many more than come in that time by themselves. Where the new
// server's accept queues are short the kernel drops what is beyond them, and those clients lose a second.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "net/sock_diag.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <tuple>

namespace syngate {

class AcceptRoom {
public:
    // For `waiting` SYNs, or about so many, to those who listen on these ports. Nobody waits until the
    // lease's end. sockets outlives this; nullptr: there is room for any number.
    AcceptRoom(Sockets* sockets, PortSet ports, std::uint64_t waiting, Time lease_end);

    // How many of so many SYNs (1 and up) may be let go now, whichever ports they are for. At least one:
    // waits for room, then, if there is none in time and where the queues cannot be read, all of them.
    std::uint64_t take(std::uint64_t most);

private:
    // All in all: a server that accepts nothing must not keep the agent from its signals, nor a client beyond
    // its next attempt, 1 s after its SYN (TCP_TIMEOUT_INIT in the kernel's net/tcp.h).
    static constexpr Duration patience = std::chrono::milliseconds(300);
    // A handshake that takes longer is not waited for: what is let go so far apart arrives so far apart,
    // after whatever round trip.
    static constexpr Duration handshake = std::chrono::milliseconds(20);
    // What is let go at once before the lease's end takes a moment.
    static constexpr Duration lease_margin = std::chrono::milliseconds(10);
    static constexpr Duration look_every = std::chrono::microseconds(200);

    // Sockets that share what comes (SO_REUSEPORT): address, device, port, whether it is IPv6.
    using Group = std::tuple<std::array<std::uint8_t, 16>, std::uint32_t, std::uint16_t, bool>;
    struct Queue {
        std::uint64_t limit = 0, filled = 0;
    };

    void look();
    Result<std::map<Group, Queue>> queues();
    void stop_waiting();

    Sockets* sockets_;
    PortSet ports_;
    std::uint64_t waiting_;
    Time until_;
    std::set<std::uint64_t> cookies_;
    std::set<Group> left_out_; // full from the beginning
    std::uint64_t let_go_ = 0;
    std::uint64_t recent_ = 0; // of them, those whose handshake may be under way
    Time latest_;              // when one was let go
    std::uint64_t left_ = 0;
    bool limited_;
};

} // namespace syngate
