// SPDX-License-Identifier: GPL-2.0-or-later
// Starting and reaping processes. The agent may be PID 1: orphans are reaped as well.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "event/loop.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace syngate {

using Argv = std::vector<std::string>;

struct ExitStatus {
    bool signalled = false;
    int value = 0; // exit code, or the signal's number
    // What a shell would report: the code, or 128 + signal.
    [[nodiscard]] int as_exit_code() const { return signalled ? 128 + value : value; }
    [[nodiscard]] std::string text() const; // "exited with status 1", "was killed by SIGSEGV (11)"
};

struct SpawnOptions {
    std::vector<std::string> environment; // "NAME=value", added to or replacing ours
    int output = -1;                      // descriptor for standard output and error; -1: ours
    int niceness = 0;                     // added to ours, see nice(1); more is less of the processors
    bool short_turns = false;             // as ours; else the kernel's own, see base/turns.hpp
    bool own_group = true; // a process group of its own, so that a terminal's Ctrl-C reaches only us
};

struct Finished {
    ExitStatus status;
    std::string output; // standard output and error together, the last 8 KiB
};

class Children {
public:
    // Takes SIGCHLD from the loop and makes this process the subreaper of its descendants.
    static Result<std::unique_ptr<Children>> start(Loop& loop);
    ~Children();

    // posix_spawnp with default signal dispositions and an empty signal mask. A missing or
    // non-executable program is an error here, not an exit status of 127.
    Result<pid_t> spawn(const Argv& argv, const SpawnOptions& options = {});
    // The error that spawn() would give for a missing or non-executable program, with nothing started.
    [[nodiscard]] Result<void> can_spawn(const Argv& argv) const;
    // Empty while it runs. Kept until forget().
    [[nodiscard]] std::optional<ExitStatus> status(pid_t pid) const;
    void forget(pid_t pid);

    // Runs a program to its end, pumping the loop; after the deadline it and its process group are killed
    // with SIGKILL and the error says so. The same as soon as `cancelled` says so; it may be empty.
    Result<Finished> run(const Argv& argv, Time deadline, const SpawnOptions& options = {},
                         const std::function<bool()>& cancelled = {});

private:
    Children();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace syngate
