// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/clock.hpp"
#include "load/histogram.hpp"
#include "load/outcome.hpp"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace syngate::load {

struct Report {
    double wanted_rate = 0;    // connections a second
    double achieved_rate = 0;  // from the first intended start to one interval after the last real one
    Duration elapsed{};        // until the last answer
    std::uint64_t started = 0; // attempts, the local failures included
    OutcomeCounts outcomes;
    Histogram latency;     // of the ok ones: from the intended start to the end of the answer
    Histogram connect;     // from the call of connect to the client's knowing of the established connection
    Duration max_lateness; // the generator's own: of a real start behind its intended one
    std::uint64_t max_open = 0;
    std::optional<Duration> first_failure; // after the start of the run; the same for the last
    std::optional<Duration> last_failure;
    std::string first_local_error; // "connect: Cannot assign requested address"; empty if there was none
};

nlohmann::json to_json(const Report& report);
std::string to_text(const Report& report);

} // namespace syngate::load
