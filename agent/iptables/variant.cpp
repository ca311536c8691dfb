// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/variant.hpp"

#include "iptables/program.hpp"
#include "iptables/rules.hpp"
#include "probe/switches.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>
#include <unistd.h>

namespace syngate {
namespace {

// infix: "-nft", "-legacy", or "" for the default programs.
std::optional<Tool> find_tool(const std::string& variant, const std::string& infix, bool ipv6) {
    const std::string stem = (ipv6 ? "ip6tables" : "iptables") + infix;
    Tool tool{.variant = variant,
              .ipv6 = ipv6,
              .iptables = find_program(stem),
              .save = find_program(stem + "-save"),
              .restore = find_program(stem + "-restore")};
    if (tool.iptables.empty() || tool.save.empty() || tool.restore.empty())
        return {};
    return tool;
}

// "iptables v1.8.9 (nf_tables)"; before 1.8 there was only what is now called legacy.
std::string default_variant() {
    const std::string program = find_program("iptables");
    if (program.empty())
        return "";
    const auto said = run_program({program, "-V"}, "", std::chrono::seconds(5));
    if (!said || !said->ok())
        return "";
    return said->out.find("nf_tables") != said->out.npos ? "nft" : "legacy";
}

std::optional<Variant> find_variant(const std::string& name, const std::string& infix) {
    const auto v4 = find_tool(name, infix, false);
    if (!v4)
        return {};
    Variant variant{.name = name, .tools = {*v4}, .no_ipv6_because = {}};
    if (!has_ipv6())
        return variant;
    if (switched_off(feature::ip6tables))
        variant.no_ipv6_because = off_text;
    else if (const auto v6 = find_tool(name, infix, true); v6)
        variant.tools.push_back(*v6);
    else
        variant.no_ipv6_because =
            fmt::format("there is no ip6tables{0}, ip6tables{0}-save and ip6tables{0}-restore", infix);
    return variant;
}

} // namespace

bool has_ipv6() {
    return ::access("/proc/net/if_inet6", F_OK) == 0;
}

void sort_by_choice(std::vector<Variant>& variants) {
    const auto rank = [](const Variant& v) { return (v.holds_rules ? 2 : 0) + (v.is_default ? 1 : 0); };
    std::ranges::stable_sort(variants, [&](const Variant& a, const Variant& b) { return rank(a) > rank(b); });
}

std::vector<Variant> installed_variants() {
    std::vector<Variant> found;
    for (const auto& [name, feature] :
         {std::pair{"nft", feature::iptables_nft}, std::pair{"legacy", feature::iptables_legacy}}) {
        auto variant = find_variant(name, fmt::format("-{}", name));
        if (!variant && default_variant() == name)
            variant = find_variant(name, "");
        if (variant && !switched_off(feature))
            found.push_back(std::move(*variant));
    }
    return found;
}

std::vector<Variant> find_variants() {
    std::vector<Variant> found = installed_variants();
    const std::string by_default = default_variant();
    for (Variant& variant : found) {
        variant.is_default = variant.name == by_default;
        for (const Tool& tool : variant.tools) {
            const auto saved = tool.saved();
            variant.holds_rules |= saved && rules::holds_rules(*saved);
        }
    }
    sort_by_choice(found);
    return found;
}

} // namespace syngate
