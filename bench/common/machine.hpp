// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json.hpp>

namespace syngate::bench {

// What the numbers were measured on: processor, kernel, distribution, versions of what takes part, date, and
// how busy the machine was. SYNGATE_BENCH_COMMIT says which state of the tree was built.
nlohmann::json machine();

} // namespace syngate::bench
