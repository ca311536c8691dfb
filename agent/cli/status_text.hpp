// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace syngate {

// An agent's answer for people: a status, the outcome of a reload, or a plain message.
std::string describe(const nlohmann::json& answer);

} // namespace syngate
