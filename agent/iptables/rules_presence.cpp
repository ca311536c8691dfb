// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/rules_presence.hpp"

#include "iptables/rules_text.hpp"

#include <algorithm>

namespace syngate::rules {
namespace {

std::size_t lines_with(std::string_view text, std::string_view begin) {
    std::size_t found = 0;
    text::for_each_line(text, "",
                        [&](std::string_view line, std::string_view) { found += line.starts_with(begin); });
    return found;
}

} // namespace

Presence presence_in(std::string_view saved, std::string_view table, std::uint64_t owner,
                     const Parts& parts) {
    Presence found{.jumps = lines_with(jumps_removal(saved, table, owner, parts), "-D ")};
    text::for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        if (!line.starts_with("-A "))
            return;
        const std::string_view chain = text::word_at(line.substr(3));
        found.rules += text::owner_of(chain) == owner && parts.contains(text::part_of(chain));
    });
    return found;
}

Presence presence_after(std::string_view text) {
    return {.jumps = lines_with(text, "-I "), .rules = lines_with(text, "-A ")};
}

std::string without_former_jumps(const std::string& text, std::string_view saved, std::string_view table,
                                 std::uint64_t owner, const Parts& parts) {
    std::string removals;
    text::for_each_line(jumps_removal(saved, table, owner, parts), "",
                        [&](std::string_view line, std::string_view) {
                            if (line.starts_with("-D "))
                                removals += std::string(line) + "\n";
                        });
    const std::size_t first_rule = std::min(text.find("\n-"), text.find("\nCOMMIT"));
    return std::string(text).insert(first_rule + 1, removals);
}

} // namespace syngate::rules
