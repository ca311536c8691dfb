// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "event/loop.hpp"
#include "gate/gate.hpp"

#include <optional>

namespace syngate {

// A gate that is closed as long as this lives: the lease is renewed from the loop, and whatever way the
// scope is left, the gate opens.
class ClosedGate {
public:
    static Result<ClosedGate> close(Loop& loop, Gate& gate, Duration lease);
    ClosedGate(ClosedGate&& other) noexcept;
    ClosedGate& operator=(ClosedGate&&) = delete;
    ~ClosedGate() { open(); }
    // Opens and replays; nothing the second time.
    Window open();

private:
    explicit ClosedGate(Gate& gate) : gate_(&gate) {}
    Gate* gate_;
    Source renewal_;
};

} // namespace syngate
