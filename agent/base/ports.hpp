// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace syngate {

// TCP ports in host byte order, ascending.
using PortSet = std::set<std::uint16_t>;

// "80,443,8000-8010". Port 0, an empty element, a descending range or a stray sign: Exit::usage.
Result<PortSet> parse_ports(std::string_view text);

// Runs folded again: "80,443,8000-8010"; "none" for the empty set.
std::string format_ports(const PortSet& ports);

} // namespace syngate
