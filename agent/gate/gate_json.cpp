// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/gate_json.hpp"

namespace syngate {
const char* to_string(Policy policy) {
    return policy == Policy::hold ? "hold" : "drop";
}

nlohmann::json to_json(const GateStatus& status) {
    nlohmann::json interfaces = nlohmann::json::array();
    for (const auto& each : status.interfaces)
        interfaces.push_back({{"name", each.name},
                              {"hook", each.hook},
                              {"can_replay", each.can_replay},
                              {"divert", each.divert}});
    nlohmann::json verdicts = nlohmann::json::object();
    for (const auto& [reason, packets] : status.verdicts)
        verdicts[reason] = packets;
    return {{"mode", status.mode},
            {"hook", status.hook},
            {"policy", to_string(status.policy)},
            {"closed", status.closed},
            {"lease_left_us", to_us(status.lease_left)},
            {"ports", status.gated.empty() ? "" : format_ports(status.gated)},
            {"interfaces", std::move(interfaces)},
            {"local_addresses", status.local_addresses},
            {"park_memory", status.park_memory},
            {"pins", status.pins},
            {"no_pins_because", status.no_pins_because},
            {"verdicts", std::move(verdicts)}};
}

nlohmann::json to_json(const Window& window) {
    return {{"window_us", to_us(window.length)}, {"parked", window.parked},
            {"replayed", window.replayed},       {"replay_failed", window.replay_failed},
            {"expired", window.expired},         {"dropped", window.dropped},
            {"lease_lost", window.lease_lost}};
}

} // namespace syngate
