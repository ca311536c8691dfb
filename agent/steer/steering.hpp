// SPDX-License-Identifier: GPL-2.0-or-later
// Steering as the reload protocol sees it: which listening sockets get new connections. Backends implement
// it; the protocol never knows which. Connections that exist are never touched.
#pragma once

#include "base/result.hpp"
#include "net/listen_address.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace syngate {

// New connections to this address and port go to these sockets, spread over them; when they are closed, by
// the kernel's own rules. An address of all zeros stands for every one that has no rule of its own; with no
// sockets, an address is left to the kernel's own rules although that one would match.
struct SteerRule {
    ListenAddress at;
    std::vector<Listener> to;
};

// Whether a reload steers, or closes the gate.
enum class Flip {
    never,
    automatic, // steers where the server and the kernel allow it
    always,
};

struct SteeredAddress {
    std::string at; // "10.0.0.1:80"
    std::uint16_t port = 0;
    std::size_t sockets = 0;
    std::size_t open = 0; // of these
    std::uint64_t connections = 0;
    std::uint64_t no_listener = 0; // left to the kernel's own rules, as the sockets were closed
};

struct SteeringStatus {
    std::string mode;             // "bpf"
    std::uint32_t generation = 0; // 0: nothing is steered
    std::vector<SteeredAddress> rules;
    std::vector<std::pair<std::string, std::uint64_t>> verdicts; // look-ups by reason, in the reasons' order
};

class Steering {
public:
    virtual ~Steering() = default;
    // Replaces whatever was steered, all addresses and ports in one step. When it returns, no connection that
    // is under way is judged by what held before. On an error nothing has changed; it names the listener.
    virtual Result<void> steer(const std::vector<SteerRule>& rules) = 0;
    // The kernel's own rules for everything, in one step.
    virtual void release() = 0;
    [[nodiscard]] virtual SteeringStatus status() const = 0;
};

} // namespace syngate
