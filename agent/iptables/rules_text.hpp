// SPDX-License-Identifier: GPL-2.0-or-later
// What the texts of rules are made of, for the files of this room that write or read them.
#pragma once

#include "base/ports.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace syngate::rules::text {

inline constexpr auto a_syn = "-p tcp -m tcp --tcp-flags SYN,ACK SYN";
inline constexpr auto to_here = "-m addrtype --dst-type LOCAL";
inline constexpr auto to_others = "-m addrtype ! --dst-type LOCAL";

std::string chain(std::uint64_t owner, std::string_view part = "");
// In a restore that flushes nothing, this empties the chain or makes it.
std::string emptied(const std::string& chain);
std::string in_table(std::string_view table, const std::string& lines);

std::string_view word_at(std::string_view text);
// The owner's digits, if this is the name of a chain of ours.
std::optional<std::uint64_t> owner_of(std::string_view chain);
// What is behind the owner's digits, as "-p".
std::string_view part_of(std::string_view chain);
std::set<std::string> chains_of(std::string_view saved, std::string_view table, std::uint64_t owner);
// Before a rule: "[packets:bytes]"; 0 if it is not there.
std::uint64_t packets_in(std::string_view counters);

// Calls f(line, counters) for each line of this table, or of all tables for "". The line comes without its
// counters.
template <class F> void for_each_line(std::string_view saved, std::string_view table, F&& f) {
    bool wanted = table.empty();
    while (!saved.empty()) {
        const std::size_t end = saved.find('\n');
        std::string_view line = saved.substr(0, end);
        saved.remove_prefix(end == saved.npos ? saved.size() : end + 1);
        if (line.starts_with('*'))
            wanted = table.empty() || line.substr(1) == table;
        if (!wanted)
            continue;
        std::string_view counters;
        if (line.starts_with('[')) {
            counters = line.substr(0, line.find(']'));
            line.remove_prefix(std::min(line.size(), counters.size() + 2));
        }
        f(line, counters);
    }
}

} // namespace syngate::rules::text
