// SPDX-License-Identifier: GPL-2.0-or-later
// Runs a small program to its end and pumps no loop: an iptables call takes some milliseconds, and a gate
// that is half changed must not be seen by any handler. But other agents that ask for our claims are answered
// meanwhile: it may wait for a lock.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"

#include <functional>
#include <string>
#include <vector>

namespace syngate {

struct ProgramResult {
    int status = 0;  // exit status; 128 + signal
    std::string out; // standard output
    std::string err; // standard error, without the newline at its end
    [[nodiscard]] bool ok() const { return status == 0; }
};

// Where PATH, or else /usr/sbin, /sbin, /usr/bin or /bin, has an executable of this name; "" if nowhere.
std::string find_program(const std::string& name);

// argv.front() is a path. `input` is its standard input. In a process group of its own, so that Ctrl-C
// reaches the agent alone. Killed with the agent, and after `patience`, which is an error with ETIMEDOUT.
Result<ProgramResult> run_program(const std::vector<std::string>& argv, const std::string& input,
                                  Duration patience);

// While it lives, `sign` is called before each program is run and a few times a second as long as that runs:
// for what others would take a loop that does not turn to be dead by.
class SignOfLife {
public:
    explicit SignOfLife(std::function<void()> sign);
    ~SignOfLife();
    SignOfLife(const SignOfLife&) = delete;
    SignOfLife& operator=(const SignOfLife&) = delete;
    static void give_all();

private:
    std::function<void()> sign_;
};

} // namespace syngate
