// SPDX-License-Identifier: GPL-2.0-or-later
// Whether rules of ours are there as they were put there, in the output of iptables-save.
#pragma once

#include "iptables/rules.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace syngate::rules {

struct Presence {
    std::size_t jumps = 0; // to these chains from others
    std::size_t rules = 0; // in them
    bool operator==(const Presence&) const = default;
};

Presence presence_in(std::string_view saved, std::string_view table, std::uint64_t owner, const Parts& parts);
// After this text has been restored, which has its jumps.
Presence presence_after(std::string_view text);

// The text with what leads to the chains now taken away in the same step, so that it is not there twice.
std::string without_former_jumps(const std::string& text, std::string_view saved, std::string_view table,
                                 std::uint64_t owner, const Parts& parts);

} // namespace syngate::rules
