// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/leftovers.hpp"

#include "control/registry.hpp"
#include "iptables/extensions.hpp"
#include "iptables/variant.hpp"

#include <fmt/format.h>
#include <fstream>

namespace syngate {
namespace {

// Asking the legacy variant for a table's rules makes the table, and may load its module.
bool has_legacy_table(bool ipv6) {
    std::ifstream names(ipv6 ? "/proc/net/ip6_tables_names" : "/proc/net/ip_tables_names");
    for (std::string name; std::getline(names, name);)
        if (name == "mangle")
            return true;
    return false;
}

} // namespace

Result<std::vector<std::string>> sweep_rules() {
    std::vector<std::string> removed;
    Result<void> result;
    for (const Variant& variant : installed_variants()) {
        for (const Tool& tool : variant.tools) {
            if (variant.name == "legacy" && !has_legacy_table(tool.ipv6))
                continue;
            const auto saved = tool.saved();
            if (!saved) // this kernel does not have this variant
                continue;
            for (const std::uint64_t owner : rules::owners(*saved)) {
                if (is_alive(owner))
                    continue;
                if (const auto r = remove_rules(tool, owner); !r)
                    result = std::unexpected(r.error());
                else
                    removed.push_back(fmt::format("the {} rules (iptables {}) of a dead agent",
                                                  tool.ipv6 ? "IPv6" : "IPv4", variant.name));
            }
        }
    }
    if (!result)
        return std::unexpected(result.error());
    return removed;
}

} // namespace syngate
