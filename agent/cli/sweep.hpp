// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "cli/options.hpp"

#include <string>
#include <vector>

namespace syngate {

// Control sockets that are not named by --control are RUNTIME_DIR/net-<network namespace>-<pid>.sock.
inline constexpr const char* control_prefix = "net-";

// Removes whatever killed agents left, and says what. Nothing of a living agent's.
Result<std::vector<std::string>> sweep(const GateOptions& options);

} // namespace syngate
