// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate exec`: the gate around any command that replaces a server.
#pragma once

#include "event/loop.hpp"
#include "gate/gate.hpp"
#include "net/sock_diag.hpp"
#include "reload/drain.hpp"
#include "reload/outcome.hpp"
#include "server/children.hpp"

namespace syngate {

struct CoverOptions {
    PortSet ports;
    Policy policy = Policy::hold;
    Duration lease = std::chrono::seconds(3);
    Duration wait_timeout = std::chrono::seconds(30); // after the command, until the ports listen
    // After the command, while sockets of before it listen and nothing changes.
    Duration settle = std::chrono::seconds(1);
    DrainOptions drain;
};

struct Covered {
    Outcome outcome;
    ExitStatus command;
};

// Closes, drains, runs the command, waits until every port listens that listened before (or, when none
// did, all of them) by sockets that are new, opens. Sockets of before the command are enough when they stay.
// After a command that failed it opens at once. An error when the command cannot be started; the gate is open
// then.
Result<Covered> cover(Loop& loop, Gate& gate, Sockets& sockets, Children& children, const Argv& command,
                      const CoverOptions& options);

} // namespace syngate
