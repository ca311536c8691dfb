// SPDX-License-Identifier: GPL-2.0-or-later
// By which programs of a variant standing rules can be put up, and what their lease is kept by.
#pragma once

#include "base/result.hpp"
#include "iptables/rules.hpp"
#include "iptables/tool.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace syngate {

struct StandingNeeds {
    std::string variant;
    rules::ExtensionSet needed;
    rules::ExtensionSet useful = {}; // done without
    bool leased = true;
    std::string by_ipv4_only; // says that IPv6 is left out
    // What is not possible by that program, and why.
    std::function<std::string(const char* program, const std::string& lacking)> impossible;
};

struct StandingTools {
    std::vector<Tool> tools;
    rules::LeaseBy lease_by = rules::LeaseBy::recent;
    rules::ExtensionSet useful; // what all of them have of it
};

// Tries it. IPv6 is left out, with a warning, where there is no ip6tables; Exit::impossible where what is
// needed is missing.
Result<StandingTools> choose_standing_tools(const StandingNeeds& needs, std::uint64_t owner);

} // namespace syngate
