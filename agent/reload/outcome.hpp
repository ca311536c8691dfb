// SPDX-License-Identifier: GPL-2.0-or-later
// What a reload, a restart or a covered command did: for the log, the status and the caller.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "gate/gate.hpp"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace syngate {

struct Step {
    std::string name; // "check", "start", "close", "drain", "swap", "open"
    Duration took{};
    std::string note;
};

struct Outcome {
    std::string action; // "reload", "restart", "exec"
    Exit exit = Exit::ok;
    std::string message; // why it failed, or what is odd about how it went well
    std::vector<Step> steps;
    PortSet gated;   // empty: there was no window
    PortSet flipped; // changed hands by steering; this and gated empty: nothing that is covered did
    Window window;
    std::size_t half_open = 0; // at the moment of closing
    std::size_t queued = 0;    // in the accept queues that were drained, at the moment of closing
    std::size_t left = 0;      // half-open and queued connections that the drain did not wait for

    [[nodiscard]] bool ok() const { return exit == Exit::ok; }
};

// One line for the log.
std::string to_text(const Outcome& outcome);
nlohmann::json to_json(const Outcome& outcome);

// Times the steps of an outcome as they happen.
class StepTimer {
public:
    explicit StepTimer(Outcome& outcome) : outcome_(outcome), begun_(Clock::now()) {}
    // Ends the present step under this name; the next one begins.
    void done(std::string name, std::string note = {});

private:
    Outcome& outcome_;
    Time begun_;
};

} // namespace syngate
