// SPDX-License-Identifier: GPL-2.0-or-later
// From sockets to rules: who would get a connection by the kernel's own rules stays in place, except that
// the generation is chosen. No kernel in it.
#pragma once

#include "steer/steering.hpp"

namespace syngate {

struct Destination {
    std::uint16_t port = 0; // what clients connect to
    Listener to;            // its address is kept, its port need not be the same
};

// others: listening sockets that are to keep their connections, to be left out where `to` is bound to every
// address. Exit::impossible naming the socket when one of either is bound to a device: such a socket gets
// what comes in there only, which a rule cannot tell.
Result<std::vector<SteerRule>> make_steer_rules(const std::vector<Destination>& wanted,
                                                const std::vector<Listener>& others);

} // namespace syngate
