// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <string>
#include <vector>

namespace syngate {

// Removes the rules of dead agents from this network namespace: every variant's, IPv4's and IPv6's. The
// chains' names carry the agents' ids. Returns one line for each thing removed.
Result<std::vector<std::string>> sweep_rules();

} // namespace syngate
