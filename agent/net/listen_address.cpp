// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/listen_address.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <fmt/format.h>

namespace syngate {

ListenAddress address_of(const Listener& listener) {
    constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    ListenAddress at{listener.ipv6, listener.address, listener.port};
    if (at.ipv6 && std::equal(mapped.begin(), mapped.end(), at.address.begin())) {
        at.ipv6 = false;
        at.address = {};
        std::copy(listener.address.begin() + 12, listener.address.end(), at.address.begin());
    }
    return at;
}

std::string to_string(const ListenAddress& at) {
    char text[INET6_ADDRSTRLEN] = "?";
    inet_ntop(at.ipv6 ? AF_INET6 : AF_INET, at.address.data(), text, sizeof(text));
    return at.ipv6 ? fmt::format("[{}]:{}", text, at.port) : fmt::format("{}:{}", text, at.port);
}

} // namespace syngate
