// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "gate/gate.hpp"

#include <nlohmann/json.hpp>

namespace syngate {

const char* to_string(Policy policy);
nlohmann::json to_json(const GateStatus& status);
nlohmann::json to_json(const Window& window);

} // namespace syngate
