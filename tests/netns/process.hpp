// SPDX-License-Identifier: GPL-2.0-or-later
// Programs that a live test runs: by argument vector, with a deadline, and never outliving their object.
#pragma once

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "netns/namespace.hpp"

#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>
#include <vector>

namespace syngate::live {

using Argv = std::vector<std::string>;

// Calls it again and again until it is true; false after the deadline. For what has no event to wait for.
bool wait_until(const std::function<bool()>& is_so, Duration deadline = std::chrono::seconds(10));

struct ExitStatus {
    int code = -1;  // -1: ended by a signal
    int signal = 0; // 0: exited
    bool operator==(const ExitStatus&) const = default;
};

struct SpawnOptions {
    const Namespace* where = nullptr;                           // null: the caller's
    std::vector<std::pair<std::string, std::string>> extra_env; // over the caller's environment
    bool open_stdin = false;                                    // a pipe, until close_stdin; else /dev/null
};

// A child in a process group of its own. The destructor kills the group by SIGKILL and waits for the child.
// Throws if the program cannot be executed.
class Process {
public:
    explicit Process(const Argv& argv, const SpawnOptions& options = {});
    ~Process();
    Process(Process&& other) noexcept;
    Process& operator=(Process&&) = delete;
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    [[nodiscard]] pid_t pid() const { return pid_; }
    void signal(int number) const; // to the child alone; nothing if it has ended
    void close_stdin() { stdin_.reset(); }
    void write_stdin(std::string_view text) const;

    // Empty if it still runs after the deadline.
    std::optional<ExitStatus> wait(Duration deadline = std::chrono::seconds(10));
    [[nodiscard]] bool runs() { return !wait(Duration::zero()); }

    // What it and its children wrote so far.
    [[nodiscard]] std::string out() const;
    [[nodiscard]] std::string err() const;

private:
    pid_t pid_ = -1;
    Fd pidfd_;
    Fd stdin_;
    Fd out_; // memory files: no pipe that fills up, no thread that empties it
    Fd err_;
    std::optional<ExitStatus> status_;
};

struct RunResult {
    ExitStatus status;
    std::string out;
    std::string err;
    [[nodiscard]] bool ok() const { return status == ExitStatus{0, 0}; }
};

// Runs to the end. Throws, after killing it, if that is not before the deadline.
RunResult run(const Argv& argv, const SpawnOptions& options = {},
              Duration deadline = std::chrono::seconds(30));
// The same, and throws with its output unless it exits with 0. Returns its standard output.
std::string must_run(const Argv& argv, const SpawnOptions& options = {});

// All of this PID namespace.
std::set<pid_t> processes();

// A program of this build, as "syngate" or "syngate-load".
std::string built(std::string_view program);

} // namespace syngate::live
