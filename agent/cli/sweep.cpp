// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/sweep.hpp"

#include "control/socket_file.hpp"
#include "gate/stale.hpp"

#include <fmt/format.h>

namespace syngate {

Result<std::vector<std::string>> sweep(const GateOptions& options) {
    auto removed = sweep_stale(options.bpffs);
    if (!removed)
        return removed;
    for (const std::string& path : sweep_sockets(options.runtime_dir, control_prefix))
        removed->push_back(fmt::format("the control socket {}", path));
    return removed;
}

} // namespace syngate
