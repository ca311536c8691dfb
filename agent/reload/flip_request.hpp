// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate flip` as it comes over the control socket: {"flips": {"80": 8081}}, or {"clear": true, "ports":
// "80"}.
#pragma once

#include "reload/steerer.hpp"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace syngate {

nlohmann::json flip_request(const PortFlips& flips);
nlohmann::json clear_request(const PortSet& ports);

// claim: makes the ports that are flipped ours, before anything else is done.
Result<void> run_flip_request(Steerer& steerer, const nlohmann::json& request,
                              const std::function<Result<void>(const PortSet&)>& claim);

// What is flipped, for people.
std::string describe(const Steerer& steerer);

} // namespace syngate
