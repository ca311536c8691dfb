// SPDX-License-Identifier: GPL-2.0-or-later
// The gate as the reload protocol sees it. Backends implement it; the protocol never knows which.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "base/result.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace syngate {

// `flip` needs no gate and is not one of a gate's policies.
enum class Policy { drop, hold };

// What happened between a close and its open.
struct Window {
    Duration length{};
    std::uint64_t parked = 0;
    std::uint64_t replayed = 0;
    std::uint64_t replay_failed = 0; // the kernel refused the frame; counted, not retried
    std::uint64_t expired = 0;       // parked, but the lease had ended before the replay
    std::uint64_t dropped = 0; // SYNs dropped by policy, full park memory or a device that cannot replay
    bool lease_lost = false;   // the gate opened by itself before open() was called
};

struct GateInterface {
    std::string name;
    std::string hook; // "tcx", "tc", "xdp-native", "xdp-generic"
    bool can_replay = false;
    std::string divert; // where the divert program sits; empty: it is not there
};

struct GateStatus {
    std::string mode; // "bpf", "iptables"
    std::string hook; // as asked for or chosen; of iptables: its variant, "nft" or "legacy"
    Policy policy = Policy::hold;
    bool closed = false;
    Duration lease_left{};
    PortSet gated; // of the present or the latest window
    std::vector<GateInterface> interfaces;
    std::vector<std::pair<std::string, std::uint64_t>> verdicts; // packets by reason, in the reasons' order
    std::string pins;                                            // directory, or empty
    std::string no_pins_because;
    std::string no_divert_because; // it was asked for, and is not possible by the gate's mode
    // Of transparent proxying, packets by reason; empty without.
    std::vector<std::pair<std::string, std::uint64_t>> divert_verdicts;
    std::size_t park_memory = 0; // bytes
    std::size_t local_addresses = 0;
};

class Gate {
public:
    virtual ~Gate() = default;
    // What a server's start need not wait for; to be called before anything else. Nothing if it was done.
    virtual Result<void> complete() { return {}; }
    // Names the ports of the next window. Not part of the window, may take its time; only while open.
    virtual Result<void> stage(const PortSet& ports, Policy policy) = 0;
    // Closes all staged ports in one atomic step, for `lease` and never longer than the longest window.
    virtual Result<void> close(Duration lease) = 0;
    // Extends the lease from now on. False: it has ended, or the longest window has; the gate is open.
    virtual bool renew(Duration lease) = 0;
    [[nodiscard]] virtual bool is_closed() const = 0;
    // Opens in one atomic step, then replays what was parked, oldest first. What is parked by a CPU
    // that still saw the gate closed is replayed from the event loop as it comes.
    virtual Window open() = 0;
    [[nodiscard]] virtual GateStatus status() const = 0;
};

} // namespace syngate
