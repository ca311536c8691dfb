// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/rules_text.hpp"

#include <charconv>
#include <fmt/format.h>

namespace syngate::rules::text {
namespace {

constexpr std::string_view prefix = "SYNGATE-";
constexpr std::size_t id_digits = 16;

} // namespace

std::string chain(std::uint64_t owner, std::string_view part) {
    return fmt::format("{}{:016x}{}", prefix, owner, part);
}

std::string emptied(const std::string& chain) {
    return fmt::format(":{} - [0:0]\n", chain);
}

std::string in_table(std::string_view table, const std::string& lines) {
    return fmt::format("*{}\n{}COMMIT\n", table, lines);
}

std::string_view word_at(std::string_view text) {
    return text.substr(0, text.find(' '));
}

std::optional<std::uint64_t> owner_of(std::string_view chain) {
    if (!chain.starts_with(prefix) || chain.size() < prefix.size() + id_digits)
        return {};
    const char* begin = chain.data() + prefix.size();
    std::uint64_t owner = 0;
    const auto [end, error] = std::from_chars(begin, begin + id_digits, owner, 16);
    const std::string_view rest = part_of(chain);
    if (error != std::errc{} || end != begin + id_digits || (!rest.empty() && rest.front() != '-'))
        return {};
    return owner;
}

std::string_view part_of(std::string_view chain) {
    return chain.substr(std::min(chain.size(), prefix.size() + id_digits));
}

std::set<std::string> chains_of(std::string_view saved, std::string_view table, std::uint64_t owner) {
    std::set<std::string> found;
    for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        if (line.starts_with(':') && owner_of(word_at(line.substr(1))) == owner)
            found.emplace(word_at(line.substr(1)));
    });
    return found;
}

std::uint64_t packets_in(std::string_view counters) {
    std::uint64_t packets = 0;
    if (counters.size() > 1)
        std::from_chars(counters.data() + 1, counters.data() + counters.size(), packets);
    return packets;
}

} // namespace syngate::rules::text
