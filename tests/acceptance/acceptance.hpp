// SPDX-License-Identifier: GPL-2.0-or-later
// A real server under `syngate run`, swapped on a schedule under load. Prints what was measured.
#pragma once

#include "netns/sandbox.hpp"

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace syngate::live {

// SYNGATE_ACCEPTANCE_SECONDS: how long the reloads last, the restarts half of it (60).
Duration duration_of_reloads();

struct Swaps {
    Argv server;
    Argv options = {}; // of `syngate run`
    std::string verb = "reload";
    Duration period = std::chrono::seconds(1);
    Duration in_all = duration_of_reloads();
    double rate = 3000; // new connections a second
};

struct Measured {
    LoadResult load;
    std::vector<nlohmann::json> outcomes;
    double median_window_ms = 0;
    double longest_window_ms = 0;
    // Latencies count from the intended start, so that a client that is late itself measures the machine.
    [[nodiscard]] double lateness_ms() const { return load.report["max_lateness_ms"].get<double>(); }
    [[nodiscard]] bool is_measured() const { return lateness_ms() <= 50; }
    [[nodiscard]] std::string why_not() const;
    [[nodiscard]] double slowest_ms() const { return load.latency_ms("max"); }
};

class Acceptance : public ::testing::Test {
protected:
    // Every swap succeeds, no connection fails, and as many are made as were asked for.
    Measured measure(const Swaps& swaps);
    ClientHost hosts_;
};

} // namespace syngate::live
