// SPDX-License-Identifier: GPL-2.0-or-later
// An agent that is killed, stopped, doubled and lied to: what the invariants' tests need besides the harness.
#pragma once

#include "netns/sandbox.hpp"

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace syngate::live::robust {

// {"status", "--json"} with the program before it.
Argv syngate(const Argv& arguments);
// {"run", options..., "--", server...}
Argv running(const Argv& options, const Argv& server);
// Runs it to its end.
RunResult cli(const Argv& arguments, const SpawnOptions& options = {});

// An agent and the processes that it started, all of which end with this object.
class Agent {
public:
    // Waits until its control socket answers.
    explicit Agent(const Argv& arguments, const SpawnOptions& options = {});
    ~Agent();
    Agent(const Agent&) = delete;
    Agent& operator=(const Agent&) = delete;

private:
    std::string control_;

public:
    Process process;
    [[nodiscard]] std::string control() const { return control_; }
    // The JSON answer of `syngate VERB --json` to this agent; its exit status is in "exit".
    [[nodiscard]] nlohmann::json ask(const std::string& verb, const Argv& more = {}) const;
    [[nodiscard]] std::set<std::string> interfaces() const;
    // SIGKILL, and gone when this returns. What it started lives on until the destructor.
    void kill();

private:
    std::set<pid_t> started_;
};

// Where the gate of `syngate exec` is closed by the time the constructor returns: --ports of `arguments`.
// It stays closed until SIGTERM, which ends the covered command.
struct Closed : Agent {
    explicit Closed(const Argv& arguments, const SpawnOptions& options = {});
    void end(); // by SIGTERM, and waits for the end
};

// A TCP listener of both families in the calling thread's namespace, on which nobody accepts: the kernel
// completes handshakes.
class Listener {
public:
    explicit Listener(std::uint16_t port, int backlog = 4096);
    Listener(const Namespace& where, std::uint16_t port);
    [[nodiscard]] Fd accept() const;
    // A connection waits, or comes within the time.
    [[nodiscard]] bool has_pending(Duration patience) const;

private:
    Fd fd_;
};

enum class Reply { connected, refused, silent };
std::ostream& operator<<(std::ostream& out, Reply reply);

struct Target {
    std::string address; // IPv4 or IPv6
    std::uint16_t port = 0;
};

// One SYN has left when this returns, and nobody has answered it yet.
Fd begin_to_connect(const Namespace& from, const Target& to);
// One SYN (the retransmission comes later than `patience`), from that namespace.
Reply knock(const Namespace& from, const Target& to, Duration patience = std::chrono::milliseconds(100));
// The same, and the connection.
Fd connect_from(const Namespace& from, const Target& to);
// When the first of many knocks was answered, or empty after the deadline.
std::optional<Time> answered(const Namespace& from, const Target& to, Duration deadline);

// `tc qdisc show` and the filters of both directions of every device, without statistics.
std::string traffic_control();
// Paths below the directory, without the kernel's own.
std::set<std::string> pins(const std::string& directory = "/sys/fs/bpf");

} // namespace syngate::live::robust
