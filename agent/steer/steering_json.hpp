// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "steer/steering.hpp"

#include <nlohmann/json.hpp>

namespace syngate {

nlohmann::json to_json(const SteeringStatus& status);

} // namespace syngate
