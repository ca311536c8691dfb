// SPDX-License-Identifier: GPL-2.0-or-later
// SYNs that were held are let go all at once, many more than come in that time by themselves. Where the new
// server's queues are short the kernel drops what is beyond them, and those clients lose a second.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "net/sock_diag.hpp"

#include <chrono>
#include <cstdint>
#include <optional>

namespace syngate {

class AcceptRoom {
public:
    // Of those who listen on these ports. sockets outlives this; nullptr: there is room for any number.
    AcceptRoom(Sockets* sockets, PortSet ports) : sockets_(sockets), ports_(std::move(ports)) {}

    // How many of so many SYNs (1 and up) may be let go now; whichever ports they are for. At least one:
    // waits for room, in all no longer than `patience`; then, and where the queues cannot be read, all of
    // them.
    std::uint64_t take(std::uint64_t most);

private:
    // A server that accepts nothing must not keep the agent from its signals; and the kernel's clients try
    // again 1 s after their first SYN (TCP_TIMEOUT_INIT in the kernel's net/tcp.h).
    static constexpr Duration patience = std::chrono::milliseconds(300);
    static constexpr Duration look_every = std::chrono::microseconds(200);

    // What the fullest of them has room for, half of it kept free for those who come meanwhile; nothing: any
    // number.
    [[nodiscard]] std::optional<std::uint64_t> look() const;

    Sockets* sockets_;
    PortSet ports_;
    std::uint64_t left_ = 1; // nobody has asked yet: one finds room wherever there is any
    std::optional<Time> give_up_;
    bool unlimited_ = false;
};

} // namespace syngate
