// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/closed_gate.hpp"

#include <memory>
#include <spdlog/spdlog.h>
#include <utility>

namespace syngate {

Result<ClosedGate> ClosedGate::close(Loop& loop, Gate& gate, Duration lease) {
    // The timer first: nothing may fail once the gate is closed.
    auto renewal = loop.every(lease / 3, [&gate, lease, lost = std::make_shared<bool>(false)] {
        if (!gate.renew(lease) && !std::exchange(*lost, true))
            spdlog::warn(
                "the gate opened by itself: the longest window has passed, or the agent was stopped for "
                "longer than its lease");
    });
    if (!renewal)
        return std::unexpected(renewal.error());
    if (const auto r = gate.close(lease); !r)
        return std::unexpected(r.error());
    ClosedGate closed(gate);
    closed.renewal_ = std::move(*renewal);
    return closed;
}

ClosedGate::ClosedGate(ClosedGate&& other) noexcept
    : gate_(std::exchange(other.gate_, nullptr)), renewal_(std::move(other.renewal_)) {}

Window ClosedGate::open() {
    if (!gate_)
        return {};
    renewal_.reset();
    return std::exchange(gate_, nullptr)->open();
}

} // namespace syngate
