// SPDX-License-Identifier: GPL-2.0-or-later
// What the gate should do with a frame, written from the specification and not from the program.
#pragma once

#include "prog/packet.hpp"

namespace syngate::prog {

// True: a SYN without ACK, whole, to TCP port 80 or 443 of 10.0.0.1 or 2001:db8::1, that the kernel
// does not take for another host's. ether_type: what the kernel says of a frame without a link layer.
bool is_ours_behind_ethernet(const Bytes& frame);
bool is_ours_without_link(const Bytes& datagram, std::uint16_t ether_type);

// As eth_type_trans() decides on an interface with the server's MAC.
bool is_for_another_host(const Bytes& frame);

} // namespace syngate::prog
