// SPDX-License-Identifier: GPL-2.0-or-later
// What a killed agent leaves: clsact filters and the qdisc made for them (TCX and XDP links die with
// their process), and pins.
#pragma once

#include "base/result.hpp"

#include <string>
#include <vector>

namespace syngate {

// Removes from this network namespace whatever belongs to agents that are dead. Who owns a filter is
// read from its program's own maps. Returns one line for each thing removed.
Result<std::vector<std::string>> sweep_stale(const std::string& pin_base);

} // namespace syngate
