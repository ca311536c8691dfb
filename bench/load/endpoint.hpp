// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <sys/socket.h>

namespace syngate::load {

// An IPv4 or IPv6 socket address.
struct Endpoint {
    sockaddr_storage address{};
    socklen_t length = 0;

    [[nodiscard]] int family() const { return address.ss_family; }
    [[nodiscard]] const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&address); }
};

// "192.0.2.1:80" or "[2001:db8::1]:80". Error: Exit::usage.
Result<Endpoint> parse_endpoint(std::string_view text);
// "192.0.2.1", "2001:db8::1" or "[2001:db8::1]", with port 0. Error: Exit::usage.
Result<Endpoint> parse_address(std::string_view text);

} // namespace syngate::load
