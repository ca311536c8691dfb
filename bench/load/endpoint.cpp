// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/endpoint.hpp"

#include <arpa/inet.h>
#include <charconv>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>

namespace syngate::load {

namespace {

bool fill(Endpoint& endpoint, const std::string& host, std::uint16_t port) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
        std::memcpy(&endpoint.address, &v4, sizeof v4);
        endpoint.length = sizeof v4;
        return true;
    }
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) != 1)
        return false;
    std::memcpy(&endpoint.address, &v6, sizeof v6);
    endpoint.length = sizeof v6;
    return true;
}

} // namespace

Result<Endpoint> parse_endpoint(std::string_view text) {
    const auto wrong = [&] {
        return failure(
            Exit::usage,
            fmt::format("'{}' is no address with a port: write 192.0.2.1:80 or [2001:db8::1]:80", text));
    };
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos)
        return wrong();
    auto host = text.substr(0, colon);
    const auto digits = text.substr(colon + 1);
    const bool bracketed = host.starts_with('[') && host.ends_with(']');
    if (bracketed)
        host = host.substr(1, host.size() - 2);
    unsigned port = 0;
    const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc{} || rest != digits.data() + digits.size() || port == 0 || port > 65535)
        return wrong();
    Endpoint endpoint;
    if (!fill(endpoint, std::string(host), static_cast<std::uint16_t>(port)) ||
        bracketed != (endpoint.family() == AF_INET6))
        return wrong();
    return endpoint;
}

Result<Endpoint> parse_address(std::string_view text) {
    auto host = text;
    if (host.starts_with('[') && host.ends_with(']'))
        host = host.substr(1, host.size() - 2);
    Endpoint endpoint;
    if (!fill(endpoint, std::string(host), 0))
        return failure(
            Exit::usage,
            fmt::format("'{}' is no address: write 192.0.2.1 or 2001:db8::1, without a port", text));
    return endpoint;
}

} // namespace syngate::load
