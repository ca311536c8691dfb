// SPDX-License-Identifier: GPL-2.0-or-later
// syngate-load in a live test, started from the client's namespace.
#pragma once

#include "netns/process.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace syngate::live {

struct LoadPlan {
    std::vector<std::string> to; // "10.77.0.1:8080", "[fd00:77::1]:8080"
    double rate = 1000;
    Argv more = {}; // further options
};

struct LoadResult {
    ExitStatus status;
    nlohmann::json report; // as of --json
    [[nodiscard]] std::uint64_t outcome(const char* name) const { return report["outcomes"][name]; }
    [[nodiscard]] std::uint64_t failed() const { return report["failed"]; }
    [[nodiscard]] std::uint64_t started() const { return report["started"]; }
    [[nodiscard]] double latency_ms(const char* name) const { return report["latency_ms"][name]; }
};

// Load that goes on until finish().
class LoadRun {
public:
    // Returns when the first connection is under way.
    LoadRun(const Namespace& client, const LoadPlan& plan);
    // Ends the schedule, waits for the open connections, and reports. Throws if there is no report.
    LoadResult finish();

private:
    Process process_;
};

// Load for a fixed time, such as "2s".
LoadResult run_load(const Namespace& client, const LoadPlan& plan, const std::string& duration);

} // namespace syngate::live
