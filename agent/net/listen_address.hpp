// SPDX-License-Identifier: GPL-2.0-or-later
// Where somebody can connect.
#pragma once

#include "net/sock_diag.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <string>

namespace syngate {

// A server binds one after the other, so that its port may listen for IPv4 and not yet for IPv6.
struct ListenAddress {
    bool ipv6 = false;
    std::array<std::uint8_t, 16> address{}; // network byte order; IPv4 in the first four bytes
    std::uint16_t port = 0;                 // host byte order
    auto operator<=>(const ListenAddress&) const = default;
    [[nodiscard]] bool is_any() const { return address == decltype(address){}; }
};

// As the socket is bound. One bound to ::ffff:a.b.c.d listens on a.b.c.d, for IPv4.
ListenAddress address_of(const Listener& listener);

// "10.0.0.1:80", "[::]:80"
std::string to_string(const ListenAddress& address);

} // namespace syngate
