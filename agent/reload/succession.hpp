// SPDX-License-Identifier: GPL-2.0-or-later
// The gate of an agent that stops while another one waits for its ports: closed between the listening sockets
// of the one's server and the other's.
#pragma once

#include "event/loop.hpp"
#include "reload/closed_gate.hpp"
#include "reload/drain.hpp"
#include "reload/handover.hpp"

#include <functional>
#include <memory>

namespace syngate {

struct SuccessionOptions {
    PortSet ports;
    Policy policy = Policy::hold;
    Duration lease = std::chrono::seconds(3);
    Duration settle = std::chrono::milliseconds(250);
    Duration timeout = std::chrono::seconds(30); // until the successor's server listens
    DrainOptions drain;
    std::function<bool()> cancelled = [] { return false; };
    std::function<bool()> successor_lives = [] { return true; };
};

class Succession {
public:
    // Closes and drains. Null, with a warning, where that is not possible: then there is a gap.
    static std::unique_ptr<Succession> begin(Loop& loop, Gate& gate, Sockets& sockets,
                                             const SuccessionOptions& options);
    // To be called once nobody listens and the ports are given up: waits for the successor's server, and
    // opens.
    void finish();

private:
    Succession(Loop& loop, Sockets& sockets, SuccessionOptions options, Listeners before, ClosedGate closed);

    Loop& loop_;
    Sockets& sockets_;
    SuccessionOptions options_;
    Handover handover_;
    ClosedGate closed_;
};

} // namespace syngate
