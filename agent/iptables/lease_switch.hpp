// SPDX-License-Identifier: GPL-2.0-or-later
// What closes and opens the staged rules, and opens them when the agent does not come back: the kernel's own
// limit, which the agent pushes on as long as the gate shall stay closed.
#pragma once

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "iptables/rules.hpp"
#include "iptables/tool.hpp"

#include <ctime>
#include <memory>
#include <vector>

namespace syngate {

struct GateFamily {
    Tool tool;
    rules::Gate gate;
};

class LeaseSwitch {
public:
    virtual ~LeaseSwitch() = default;
    // Closed from now on for limit(lease) at most. One step for each family.
    virtual Result<void> close(Duration lease) = 0;
    virtual Result<void> prolong() = 0;
    virtual Result<void> open() = 0;
    // When the kernel opens the gate by itself, as the clocks stand now.
    [[nodiscard]] virtual Time until() const = 0;
    // Of the present window. To be prolonged well before.
    [[nodiscard]] virtual Duration limit() const = 0;
};

// families: outlive the switch.
std::unique_ptr<LeaseSwitch> make_lease_switch(rules::LeaseBy by, std::vector<GateFamily>& families);

// --- the rules of rounding, for tests ---
// xt_recent counts whole seconds, from the moment of the entry: not longer than the lease, but for one below
// 1 s.
unsigned recent_seconds(Duration lease);
// xt_time closes up to the begin of a second of the wall clock: up to one second less than the lease, and
// never less than one second from now. A lease below 2 s may so last up to 2 s.
std::time_t time_second(std::time_t now, Duration lease);

} // namespace syngate
