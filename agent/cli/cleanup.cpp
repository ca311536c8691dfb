// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"
#include "cli/sweep.hpp"
#include "cli/transparent.hpp"
#include "control/registry.hpp"
#include "event/loop.hpp"

#include <fmt/format.h>

namespace syngate {
namespace {

// Who starts meanwhile asks every agent, this one too, before it adds what would be swept here.
Result<std::vector<std::string>> sweep_routing_as_an_agent() {
    const auto left = find_own_routing();
    if (!left)
        return std::unexpected(left.error());
    if (left->empty())
        return std::vector<std::string>{};
    auto loop = Loop::make();
    if (!loop)
        return std::unexpected(loop.error());
    auto registry = Registry::announce(**loop, "cleanup", "");
    if (!registry)
        return std::unexpected(registry.error());
    return sweep_routing(**registry);
}

} // namespace

Result<int> command_cleanup(const Options& options) {
    auto removed = sweep(options.gate);
    if (!removed)
        return std::unexpected(removed.error());
    const auto routing = sweep_routing_as_an_agent();
    if (!routing)
        return std::unexpected(routing.error());
    removed->insert(removed->end(), routing->begin(), routing->end());
    for (const std::string& what : *removed)
        fmt::print("removed {}\n", what);
    if (removed->empty())
        fmt::print("nothing was left behind\n");
    return 0;
}

} // namespace syngate
