// SPDX-License-Identifier: GPL-2.0-or-later
// The gate by iptables: rules are there from stage() to open() only, what iptables-nft made for them until
// the end; NFQUEUE holds SYNs; who opens a gate that is left closed is the lease switch's.
#pragma once

#include "event/loop.hpp"
#include "gate/gate.hpp"
#include "gate/intercept.hpp"
#include "net/sock_diag.hpp"

#include <memory>
#include <vector>

namespace syngate {

struct IptablesGateOptions {
    Policy policy = Policy::hold; // only for what status says and the warning that hold is not possible
    Duration lease = std::chrono::seconds(3); // the usual one
    std::size_t park_memory = 4U << 20;       // bytes
    Duration max_window = std::chrono::seconds(30);
    std::uint64_t owner_id = 0;
    std::vector<Intercept> intercepts; // SYNs that are intercepted to a gated port are gated
    Sockets* sockets = nullptr;        // who listens, and how full their queues are; outlives the gate
};

// Chooses the variant and tries what it needs. Exit::impossible names what is missing. Leaves no rule.
Result<std::unique_ptr<Gate>> make_iptables_gate(Loop& loop, const IptablesGateOptions& options);

} // namespace syngate
