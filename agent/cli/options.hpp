// SPDX-License-Identifier: GPL-2.0-or-later
// The command line and the environment, parsed and judged; no effect on anything.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "base/result.hpp"
#include "gate/attachments.hpp"
#include "gate/intercept.hpp"
#include "reload/steerer.hpp"
#include "route/policy_routing.hpp"
#include "server/children.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace syngate {

enum class Mode { automatic, bpf, iptables };

// What the verbs that hold a gate share: run, exec, close.
struct GateOptions {
    PortSet ports;                // empty: auto
    Flip flip = Flip::automatic;  // run
    Policy policy = Policy::hold; // where nothing is flipped
    Mode mode = Mode::automatic;
    Hook hook = Hook::automatic;
    Duration lease = std::chrono::seconds(3);
    Duration max_window = std::chrono::seconds(30);
    std::size_t park_memory = 4U << 20;
    std::string bpffs;
    std::string runtime_dir;
    Duration handshake_timeout = std::chrono::milliseconds(500);
};

// Transparent proxying, of run alone.
struct TransparentOptions {
    enum class Wish { automatic, on, off };
    Wish wish = Wish::automatic;
    std::vector<Intercept> intercepts;
    RouteOptions route;
};

struct Options {
    std::string verb; // "run", "exec", ...; empty: the answer is already in `text` (help, version)
    std::string text;
    std::string warning; // for the log; empty: none
    std::string log_level = "info";
    std::string control; // empty: found by the network namespace
    bool json = false;
    GateOptions gate;

    // run
    std::string reload;
    std::string check;
    std::string stop_signal;
    std::vector<std::string> watch;
    Duration stop_timeout = std::chrono::seconds(295);
    Duration start_timeout = std::chrono::seconds(30);
    Duration swap_timeout = std::chrono::seconds(5);
    Duration end_timeout = std::chrono::seconds(10);
    Duration finish_timeout = std::chrono::milliseconds(200);
    Duration settle = std::chrono::milliseconds(250);
    std::string pid_file; // empty: none
    TransparentOptions transparent;
    // run, exec
    Duration wait_for_ports = Duration::zero();
    // exec
    Duration wait_timeout = std::chrono::seconds(30);
    Duration exec_settle = std::chrono::seconds(1);
    PortSet flip_ports; // empty: picked
    // flip
    std::vector<std::string> flip_words;
    PortFlips flips;
    bool clear = false;
    PortSet cleared; // empty: all
    // close: as written, for the agent that is asked
    std::string ports_text;
    std::string lease_text;

    Argv command; // run, exec: what stands behind --
};

// Environment variables SYNGATE_<OPTION> stand behind every option, HAPROXY_PORTS behind --ports. Errors are
// Exit::usage.
Result<Options> parse_options(int argc, const char* const* argv);

} // namespace syngate
