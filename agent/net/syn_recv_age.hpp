// SPDX-License-Identifier: GPL-2.0-or-later
// How long a connection has been half-open, inferred from its SYN-ACK timer.
#pragma once

#include "base/clock.hpp"

#include <cstdint>

namespace syngate {

// A lower bound of the age of a connection in SYN_RECV.
// retransmits: of the SYN-ACK, by the timer or in answer to a repeated SYN; left: until the timer ends.
//
// The kernel's timer runs 1 s, 2 s, 4 s, ... up to 120 s (net/ipv4/inet_connection_sock.c,
// reqsk_timer_handler). So a timer that has more than 2^(n-1) s left is at least the n-th, and began 2^n - 1
// s after the SYN or later. Later, because each repeated SYN starts the same timer anew. That is also why the
// number of retransmissions says less than it seems to: the client's repetitions, at least 1 s apart (RFC
// 6298), and the timer's each account for some, so r of them take at least r / 2 s, rounded up. A sock_ops
// program that shortens the first timeout (BPF_SOCK_OPS_TIMEOUT_INIT) makes this no bound.
constexpr Duration syn_recv_age(std::uint32_t retransmits, Duration left) {
    constexpr Duration first = std::chrono::seconds(1);
    constexpr Duration longest = std::chrono::seconds(120);
    Duration began{};
    Duration timeout = first;
    while (timeout < left && timeout < longest) {
        began += timeout;
        timeout = timeout * 2 < longest ? timeout * 2 : longest;
    }
    const Duration by_timer = left < timeout ? began + timeout - left : began;
    const Duration by_count = first * ((retransmits + 1) / 2);
    return by_timer > by_count ? by_timer : by_count;
}

} // namespace syngate
