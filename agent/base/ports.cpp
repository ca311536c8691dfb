// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/ports.hpp"

#include <charconv>
#include <fmt/format.h>

namespace syngate {
namespace {

Result<std::uint16_t> parse_port(std::string_view text) {
    unsigned number = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || rest != text.data() + text.size() || number < 1 || number > 65535)
        return failure(Exit::usage, fmt::format("'{}' is no TCP port: write numbers from 1 to 65535", text));
    return static_cast<std::uint16_t>(number);
}

} // namespace

Result<PortSet> parse_ports(std::string_view text) {
    PortSet ports;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string_view element = text.substr(begin, end - begin);
        const std::size_t dash = element.find('-');
        const auto first = parse_port(element.substr(0, dash));
        if (!first)
            return std::unexpected(first.error());
        const auto last = dash == element.npos ? first : parse_port(element.substr(dash + 1));
        if (!last)
            return std::unexpected(last.error());
        if (*last < *first)
            return failure(Exit::usage, fmt::format("'{}' is no range of ports: it descends", element));
        for (unsigned port = *first; port <= *last; ++port)
            ports.insert(static_cast<std::uint16_t>(port));
        begin = end + 1;
    }
    return ports;
}

std::string format_ports(const PortSet& ports) {
    std::string text;
    for (auto it = ports.begin(); it != ports.end();) {
        const unsigned first = *it;
        unsigned last = first;
        while (++it != ports.end() && *it == last + 1)
            ++last;
        if (!text.empty())
            text += ',';
        text += last == first ? fmt::format("{}", first)
                              : fmt::format("{}{}{}", first, last == first + 1 ? ',' : '-', last);
    }
    return text.empty() ? "none" : text;
}

} // namespace syngate
