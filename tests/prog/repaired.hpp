// SPDX-License-Identifier: GPL-2.0-or-later
// Connections without a peer (TCP_REPAIR).
#pragma once

#include "base/fd.hpp"

#include <cstdint>
#include <string>
#include <sys/socket.h>

namespace syngate::prog {

// Throws if the text is no address.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;
    SocketAddress(const std::string& text, std::uint16_t port);
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// IP_TRANSPARENT, or IPV6_TRANSPARENT. Throws.
void set_transparent(const Fd& fd, bool ipv6, int on);

// A socket in state ESTABLISHED in the calling thread's namespace; the address need not be this host's.
// Throws.
Fd established(const SocketAddress& own, const SocketAddress& peer, bool transparent);

} // namespace syngate::prog
