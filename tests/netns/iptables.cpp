// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/iptables.hpp"

#include "netns/process.hpp"

#include <array>
#include <fmt/format.h>
#include <sstream>

namespace syngate::live {

namespace {

constexpr std::array legacy_tables{"filter", "mangle", "nat"};

std::string without_counters(const std::string& saved) {
    std::istringstream lines(saved);
    std::string text;
    for (std::string line; std::getline(lines, line);)
        if (!line.starts_with('#'))
            text += line.substr(0, line.starts_with(':') ? line.find(" [") : line.npos) + "\n";
    return text;
}

} // namespace

std::pair<std::string, std::string> only_variant(const std::string& variant, const std::string& without) {
    return {"SYNGATE_NO_FEATURE",
            fmt::format("{},{}", variant == "nft" ? "iptables_legacy" : "iptables_nft", without)};
}

std::string rules_of(const std::string& variant) {
    std::string text;
    for (const char* family : {"iptables", "ip6tables"}) {
        const auto program = fmt::format("{}-{}-save", family, variant);
        text += fmt::format("{}:\n{}", program, without_counters(must_run({program})));
    }
    return text;
}

std::string all_rules() {
    return rules_of("nft") + rules_of("legacy");
}

void make_legacy_tables() {
    for (const char* program : {"iptables-legacy", "ip6tables-legacy"})
        for (const char* table : legacy_tables)
            must_run({program, "-t", table, "-L", "-n"});
}

void remove_all_rules() {
    must_run({"nft", "flush", "ruleset"});
    for (const char* program : {"iptables-legacy", "ip6tables-legacy"})
        for (const char* table : legacy_tables)
            for (const char* what : {"-F", "-X"})
                must_run({program, "-w", "-t", table, what});
}

} // namespace syngate::live
