// SPDX-License-Identifier: GPL-2.0-or-later
// The reload protocol: validate, start, close, drain, swap, open, or, with no window, validate, pin, start,
// flip, drain, swap. It knows no backend of the gate or the steering, and no kind of server.
#pragma once

#include "event/loop.hpp"
#include "gate/gate.hpp"
#include "net/sock_diag.hpp"
#include "reload/drain.hpp"
#include "reload/outcome.hpp"
#include "reload/steerer.hpp"
#include "server/server.hpp"

#include <functional>
#include <optional>
#include <set>
#include <vector>

namespace syngate {

struct ProtocolOptions {
    PortSet ports; // empty: the ports on which the server listens
    Flip flip = Flip::never;
    Steerer* steerer = nullptr;   // null: nothing can be steered here
    Policy policy = Policy::hold; // where nothing is flipped
    // Blue-green: what clients connect to, while each generation listens on a port that it is given. 0: not
    // so.
    std::uint16_t front = 0;
    Duration lease = std::chrono::seconds(3);
    Duration check_timeout = std::chrono::minutes(2);
    Duration start_timeout = std::chrono::seconds(30); // until the server listens
    Duration swap_timeout = std::chrono::seconds(5);   // until the old server has let go of its sockets
    Duration end_timeout = std::chrono::seconds(10);   // until a server that is restarted has ended
    Duration settle = std::chrono::milliseconds(250);  // no change for this long: nothing more is coming
    DrainOptions drain;                                // its `finish` is for servers without a graceful stop
    std::function<bool()> cancelled = [] { return false; };
    // Asked before the gate closes: makes the server's ports ours in this network namespace.
    std::function<Result<void>(const PortSet&)> claim = [](const PortSet&) { return Result<void>{}; };
};

class Protocol {
public:
    Protocol(Loop& loop, Gate& gate, Sockets& sockets, Server& server, ProtocolOptions options);

    // The first generation, with no gate: until it listens.
    Outcome start();
    Outcome reload();
    // Full stop and start.
    Outcome restart();

    // Whether a reload will steer, or close the gate.
    [[nodiscard]] bool can_flip() const;

    // Empty before start() and when a restart failed.
    [[nodiscard]] std::optional<Generation> current() const { return current_; }
    // Generations that were told to go and still serve what they have.
    [[nodiscard]] const std::vector<Generation>& retiring() const { return retiring_; }
    // The one that served last, also when it was stopped for a restart.
    [[nodiscard]] std::optional<Generation> latest() const { return latest_; }
    // Every process of the generation is gone. When only the first one is (a wrapper script), the rest is
    // told to go.
    bool has_ended(Generation generation);
    // Forgets retired generations that have ended.
    void reap_retired();

private:
    class Run;
    Loop& loop_;
    Gate& gate_;
    Sockets& sockets_;
    Server& server_;
    ProtocolOptions options_;
    std::optional<Generation> current_;
    std::optional<Generation> latest_;
    std::vector<Generation> retiring_;
    std::set<Generation> rest_told_;
};

} // namespace syngate
