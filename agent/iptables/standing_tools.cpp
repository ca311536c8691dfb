// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/standing_tools.hpp"

#include "iptables/extensions.hpp"
#include "iptables/variant.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {

Result<StandingTools> choose_standing_tools(const StandingNeeds& needs, std::uint64_t owner) {
    const rules::ExtensionSet leases{rules::Extension::recent, rules::Extension::time};
    rules::ExtensionSet wanted = needs.needed;
    wanted.insert(needs.useful.begin(), needs.useful.end());
    wanted.insert(leases.begin(), leases.end());
    const auto variants = find_variants();
    const auto variant = std::ranges::find(variants, needs.variant, &Variant::name);
    if (variant == variants.end())
        return failure(Exit::impossible, fmt::format("there is no iptables {}", needs.variant));
    StandingTools chosen{.tools = {}, .useful = needs.useful};
    for (const Tool& tool : variant->tools) {
        const auto found = try_extensions(tool, owner, wanted);
        if (!found && tool.ipv6 && found.error().exit != Exit::busy) {
            spdlog::warn("{}: {}", needs.by_ipv4_only, found.error().message);
            continue;
        }
        if (!found)
            return std::unexpected(found.error());
        std::string lacking = found->why_not(needs.needed);
        if (needs.leased && !found->has(rules::Extension::recent) && !found->has(rules::Extension::time))
            lacking = found->why_not(leases);
        if (!lacking.empty() && tool.ipv6) {
            spdlog::warn("{}: {}", needs.by_ipv4_only, lacking);
            continue;
        }
        if (!lacking.empty())
            return failure(Exit::impossible, needs.impossible(tool.ipv6 ? "ip6tables" : "iptables", lacking));
        if (!found->has(rules::Extension::recent))
            chosen.lease_by = rules::LeaseBy::time;
        std::erase_if(chosen.useful, [&](rules::Extension each) { return !found->has(each); });
        chosen.tools.push_back(tool);
    }
    return chosen;
}

} // namespace syngate
