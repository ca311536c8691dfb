// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "probe/features.hpp"

namespace syngate {

// What mode iptables can make use of, as feature:: names it; the best variant's features for both of its
// families. Rules are tried in a network namespace of a child process (without CAP_SYS_ADMIN: not probed, and
// taken as available where the programs are).
Features probe_iptables();

// "nft" or "legacy", whichever mode iptables takes; "" if none.
std::string best_variant(const Features& features);

} // namespace syngate
