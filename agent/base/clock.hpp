// SPDX-License-Identifier: GPL-2.0-or-later
// Time as the kernel side counts it: CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns.
#pragma once

#include "base/result.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace syngate {

using Clock = std::chrono::steady_clock; // CLOCK_MONOTONIC in libstdc++
using Time = Clock::time_point;
using Duration = std::chrono::nanoseconds;

inline std::uint64_t to_ns(Time t) {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count());
}

inline std::int64_t to_us(Duration d) {
    return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}

// "3s", "250ms", "40us", "5m", "1h"; a bare number is seconds, as in 1.5. Error: Exit::usage.
Result<Duration> parse_duration(std::string_view text);

// With the unit that leaves one to three digits before the point: "3s", "1.25ms".
std::string format_duration(Duration d);

} // namespace syngate
