// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"

#include <nlohmann/json.hpp>
#include <string>

namespace syngate {

// Sends one request and waits for its answer. No agent there: Exit::failed with what to do; no
// permission: Exit::failed naming the uid that is needed.
Result<nlohmann::json> ask(const std::string& control_path, const nlohmann::json& request, Duration timeout);

} // namespace syngate
