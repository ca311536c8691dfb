// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/sweep.hpp"

#include "control/socket_file.hpp"
#include "gate/stale.hpp"
#include "iptables/leftovers.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {

Result<std::vector<std::string>> sweep(const GateOptions& options) {
    std::vector<std::string> removed;
    Result<void> result;
    for (const auto& swept : {sweep_stale(options.bpffs), sweep_rules()}) {
        if (!swept)
            result = std::unexpected(swept.error());
        else
            removed.insert(removed.end(), swept->begin(), swept->end());
    }
    for (const std::string& path : sweep_sockets(options.runtime_dir, control_prefix))
        removed.push_back(fmt::format("the control socket {}", path));
    if (result)
        return removed;
    for (const std::string& what : removed)
        spdlog::info("removed {}", what);
    return std::unexpected(result.error());
}

} // namespace syngate
