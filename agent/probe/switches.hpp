// SPDX-License-Identifier: GPL-2.0-or-later
// The environment variable SYNGATE_NO_FEATURE: features by name, "bpf,tcx", that are treated as if this
// machine did not have them. For users whose kernel has a feature that does harm, and for tests.
#pragma once

#include "base/result.hpp"
#include "probe/features.hpp"

#include <string_view>

namespace syngate {

inline constexpr auto off_text = "switched off by SYNGATE_NO_FEATURE";

bool switched_off(std::string_view name);
// Exit::usage for a name that no feature has.
Result<void> check_switches();

} // namespace syngate
