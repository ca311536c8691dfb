// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "event/loop.hpp"
#include "gate/gate.hpp"

namespace syngate {

// The gate closed and opened by hand: nobody renews the lease, it ends when it ends.
class ManualGate {
public:
    ManualGate(Loop& loop, Gate& gate) : loop_(loop), gate_(gate) {}
    Result<void> close(const PortSet& ports, Policy policy, Duration lease);
    // What the window did; an error when the gate is not closed by hand.
    Result<Window> open();
    [[nodiscard]] bool is_closed() const { return closed_; }

private:
    Loop& loop_;
    Gate& gate_;
    Source lease_end_;
    bool closed_ = false;
};

} // namespace syngate
