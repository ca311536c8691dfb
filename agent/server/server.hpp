// SPDX-License-Identifier: GPL-2.0-or-later
// The supervised server, as the reload protocol sees it: generations that are started, watched and
// told to go. Nothing here knows the gate.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "net/sock_diag.hpp"
#include "server/children.hpp"
#include "server/recipe.hpp"

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

namespace syngate {

// A generation is named by the pid of its first process.
using Generation = pid_t;

class Server {
public:
    virtual ~Server() = default;
    [[nodiscard]] virtual const Recipe& recipe() const = 0;
    // Runs the recipe's check; the error carries what the check printed. Ends it early once cancelled.
    virtual Result<void> check(Time deadline, const std::function<bool()>& cancelled) = 0;
    // beside: another generation is running and serves.
    virtual Result<Generation> start(bool beside) = 0;
    [[nodiscard]] virtual std::optional<ExitStatus> exited(Generation generation) const = 0;
    // Whether any of its processes lives, the first one or others.
    [[nodiscard]] virtual bool has_processes(Generation generation) { return !exited(generation); }
    // The listening TCP sockets that any process of the generation holds.
    virtual Result<std::vector<Listener>> listeners(Generation generation) = 0;
    // Which process of the generation holds which listening sockets (inodes).
    virtual Result<std::map<pid_t, std::set<std::uint32_t>>> holders(Generation generation) = 0;
    // Every socket that a process of the generation holds (inodes).
    virtual Result<std::set<std::uint32_t>> sockets(Generation generation) = 0;
    // Whether it is through with starting: it would understand recipe().release_signal now. One that is told
    // earlier may die of it.
    [[nodiscard]] virtual bool is_ready(Generation) { return true; }
    // The first process, or, when it is gone, those that are left.
    virtual void tell(Generation generation, int signal) = 0;
    // The port that it was given to listen on; 0: it listens where its configuration says.
    [[nodiscard]] virtual std::uint16_t backing_port(Generation) const { return 0; }
    // SIGKILL to every process of the generation.
    virtual void kill(Generation generation) = 0;
    // Nobody will ask about it again.
    virtual void forget(Generation) {}
};

} // namespace syngate
