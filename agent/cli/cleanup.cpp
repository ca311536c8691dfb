// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"
#include "cli/sweep.hpp"

#include <fmt/format.h>

namespace syngate {

Result<int> command_cleanup(const Options& options) {
    const auto removed = sweep(options.gate);
    if (!removed)
        return std::unexpected(removed.error());
    for (const std::string& what : *removed)
        fmt::print("removed {}\n", what);
    if (removed->empty())
        fmt::print("nothing was left behind\n");
    return 0;
}

} // namespace syngate
