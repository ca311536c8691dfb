// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/leftovers.hpp"

#include "control/registry.hpp"
#include "iptables/own_rules.hpp"
#include "iptables/variant.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {

Result<std::vector<std::string>> sweep_rules() {
    std::vector<std::string> removed;
    Result<void> result;
    for (const Variant& variant : installed_variants()) {
        for (const Tool& tool : variant.tools) {
            const auto saved = tool.saved();
            if (!saved) {
                result = std::unexpected(saved.error());
                continue;
            }
            for (const std::uint64_t owner : rules::owners(*saved)) {
                if (is_alive(owner))
                    continue;
                const auto r = remove_everything(tool, owner);
                if (!r)
                    result = std::unexpected(r.error());
                else if (!*r)
                    spdlog::info(
                        "what a dead agent flipped by iptables {} stays, with nothing leading to it, "
                        "for the connections that go on",
                        variant.name);
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
