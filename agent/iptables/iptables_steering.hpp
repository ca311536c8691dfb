// SPDX-License-Identifier: GPL-2.0-or-later
// Steering by -j DNAT: what goes to a port of this host is led to another port of it. It chooses between
// ports, never between the sockets of one, and conntrack keeps every connection where it is.
#pragma once

#include "event/loop.hpp"
#include "steer/steering.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace syngate {

struct IptablesSteeringOptions {
    std::uint64_t owner_id = 0;
    std::string variant; // "nft", "legacy"
    Duration lease{};    // the gate's; what is flipped lasts three of them after the agent's death
    bool at_once = true; // what it needs is tried now, else when something is to be steered
    std::function<bool()> gate_is_closed;
};

// Exit::impossible names the extension that is missing. Leaves no rule.
Result<std::unique_ptr<Steering>> make_iptables_steering(Loop& loop, const IptablesSteeringOptions& options);

// The rules as DNAT can have them; Exit::impossible naming the port where it cannot.
struct PortRedirect {
    ListenAddress at;
    std::uint16_t to = 0; // 0: left alone
    std::size_t sockets = 0;
};
Result<std::vector<PortRedirect>> port_redirects(const std::vector<SteerRule>& rules);

} // namespace syngate
