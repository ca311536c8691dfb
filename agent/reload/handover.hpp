// SPDX-License-Identifier: GPL-2.0-or-later
// Listening sockets that change hands outside of our sight: between a server that another one replaces and
// that one.
#pragma once

#include "reload/listening.hpp"

#include <cstdint>
#include <set>

namespace syngate {

// A server that was only told to stop may listen for a while yet: sockets of before are waited for, but no
// longer than `settle` without a change. They may be there to stay.
class Handover {
public:
    enum class State { not_everywhere, old_ones_too, new_ones };

    Handover(Listeners before, PortSet ports, Duration settle);
    // Wherever somebody listened before, somebody does; where nobody did, on every port. True when there is
    // nothing more to wait for.
    bool look(const Listeners& now);
    [[nodiscard]] State state() const { return state_; }
    // Somebody new listens, and nothing has changed for `settle`.
    [[nodiscard]] bool has_settled() const;

private:
    [[nodiscard]] bool all_back(const Listeners& now) const;

    Listeners before_;
    PortSet ports_;
    Duration settle_;
    std::set<std::uint64_t> old_; // cookies
    std::set<std::uint64_t> seen_;
    Time changed_ = Clock::now();
    State state_ = State::not_everywhere;
};

} // namespace syngate
