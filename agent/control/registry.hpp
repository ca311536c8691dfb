// SPDX-License-Identifier: GPL-2.0-or-later
// Who gates what in this network namespace. Each agent holds an abstract UNIX socket
// "@syngate.agent.<id>": such names belong to the network namespace, are seen from every mount and
// PID namespace that shares it, and vanish with their process, however it ends.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "base/result.hpp"
#include "event/loop.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace syngate {

struct Peer {
    std::uint64_t id = 0;
    std::int64_t pid = 0;     // as its own PID namespace numbers it
    std::string control_path; // as its own mount namespace names it
    std::string command;      // "run", "exec", ...
    PortSet ports;
    PortSet waiting;            // it waits for others to give these up
    bool transparent = false;   // it diverts and intercepts: one agent of a network namespace at most
    bool lends = false;         // it stops, and what it routes is for a successor to take over
    std::uint64_t since_ns = 0; // CLOCK_MONOTONIC, when it announced itself
};

class Registry {
public:
    // Binds the abstract socket and answers other agents from the loop. The id is random.
    static Result<std::unique_ptr<Registry>> announce(Loop& loop, const std::string& command,
                                                      const std::string& control_path);
    ~Registry();

    [[nodiscard]] std::uint64_t id() const;
    [[nodiscard]] const PortSet& claimed() const;
    // Makes these ports ours, all or none. Exit::busy naming port, pid and control path when a living agent
    // has one of them; of two that claim at once the one that announced itself first keeps it.
    // Replaces what was claimed before. Pumps no loop; waits for each peer at most 3 s (a peer that does not
    // answer is stopped or hung: it is alive, so its claim is unknown; this is an error that names it).
    Result<void> claim(const PortSet& ports);
    // Tells who asks that these ports will be claimed again; empty: none.
    void wait_for(const PortSet& ports);
    // Of those that have asked within the last 5 s in order to claim something: who waits for one of these
    // ports, or has it, and takes over if this one stops. Waits for each of them at most 3 s, for others not.
    [[nodiscard]] std::vector<Peer> successors(const PortSet& ports) const;
    // The same for transparent proxying, of which there is one in a network namespace. False gives it up.
    Result<void> claim_transparent(bool wanted);
    // Gives it up to a successor while packets of this agent's connections still need the rules and routes:
    // until claim_transparent() is called again.
    void lend_transparent();

private:
    Registry();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// Waits until fd is readable, and answers other agents' questions for this process's meanwhile: for whoever
// waits without the loop. False at the deadline.
bool wait_answering(int fd, Time deadline);

// Every living agent of this network namespace. Sockets that are not owned by root or by our own
// uid are passed over: anybody may bind an abstract name. One that does not answer within 3 s is
// listed by its id and (as our PID namespace numbers it) its pid alone.
Result<std::vector<Peer>> find_peers();
// Whether the agent with this id may live, in this network namespace: nobody cleans up after one that does.
// One that runs as another user counts, though its claims do not; a stranger who takes a dead agent's name
// keeps what that left, which lets everything pass.
bool is_alive(std::uint64_t id);
// The network namespace's inode number, as in /proc/self/ns/net.
Result<std::uint64_t> network_namespace();

} // namespace syngate
