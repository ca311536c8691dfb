// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <nlohmann/json.hpp>
#include <string>

namespace syngate {

// control, or the socket of the one agent of this network namespace that can answer the verb.
Result<std::string> find_control(const std::string& control, const std::string& verb);

// Prints the answer and returns the exit status that it carries.
Result<int> ask_and_print(const std::string& control, const nlohmann::json& request, bool as_json);

} // namespace syngate
