// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/sweep.hpp"

#include "control/socket_file.hpp"
#include "gate/stale.hpp"
#include "iptables/leftovers.hpp"

#include <fmt/format.h>

namespace syngate {

Result<std::vector<std::string>> sweep(const GateOptions& options) {
    auto removed = sweep_stale(options.bpffs);
    const auto rules = sweep_rules(); // also where BPF is not allowed
    if (!removed)
        return removed;
    if (!rules)
        return std::unexpected(rules.error());
    removed->insert(removed->end(), rules->begin(), rules->end());
    for (const std::string& path : sweep_sockets(options.runtime_dir, control_prefix))
        removed->push_back(fmt::format("the control socket {}", path));
    return removed;
}

} // namespace syngate
