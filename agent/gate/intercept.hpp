// SPDX-License-Identifier: GPL-2.0-or-later
// Rules of --intercept: connections to foreign addresses that go to a local transparent listener.
#pragma once

#include "base/result.hpp"
#include "net/address_watch.hpp"
#include "net/listen_address.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <syngate/abi.h>
#include <vector>

namespace syngate {

struct Intercept {
    LocalPrefix prefix; // bits 0: every address of both families
    std::uint16_t port = 0;
    std::uint16_t listen_port = 0;
    std::string text; // as it was written
};

// "80=8080", "198.51.100.0/24:80=8080", "[2001:db8::]/32:80=8080" or "[2001:db8::/32]:80=8080"; an address
// without a length is one host. Exit::usage.
Result<Intercept> parse_intercept(const std::string& text);

// Several, separated by commas. Exit::usage when two of them say different things of the same addresses, or
// one leads to a port from which another leads on.
Result<std::vector<Intercept>> parse_intercepts(const std::string& text);

syngate_intercept_key key_of(const Intercept& rule);

// Where, of these listeners, transparent ones are on ports that rules lead to. One of both families is on
// every address of each. Of kernels that do not tell (Linux before 5.10) every listener counts.
std::set<ListenAddress> intercepting_listeners(const std::vector<Listener>& listeners,
                                               const std::vector<Intercept>& rules);

} // namespace syngate
