// SPDX-License-Identifier: GPL-2.0-or-later
#include "steer/steering_json.hpp"

namespace syngate {

nlohmann::json to_json(const SteeringStatus& status) {
    nlohmann::json rules = nlohmann::json::array();
    for (const SteeredAddress& each : status.rules)
        rules.push_back({{"at", each.at},
                         {"port", each.port},
                         {"sockets", each.sockets},
                         {"open", each.open},
                         {"connections", each.connections},
                         {"no_listener", each.no_listener}});
    nlohmann::json verdicts = nlohmann::json::object();
    for (const auto& [reason, lookups] : status.verdicts)
        verdicts[reason] = lookups;
    return {{"mode", status.mode},
            {"generation", status.generation},
            {"rules", std::move(rules)},
            {"verdicts", std::move(verdicts)}};
}

} // namespace syngate
