// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/clock.hpp"

#include <cstdint>
#include <utility>
#include <vector>

namespace syngate::load {

// Durations in log-linear buckets: exact below 128 ns, above that 128 buckets a power of two, so that a
// percentile is never too small and at most 1/128 too large. Maximum, mean and the count over the threshold
// are exact. Negative durations count as zero.
class Histogram {
public:
    // More than this is a request that its user would have noticed.
    static constexpr Duration threshold = std::chrono::milliseconds(500);

    Histogram();
    void record(Duration d);

    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] std::uint64_t over_threshold() const { return over_; }
    [[nodiscard]] Duration max() const { return max_; }
    [[nodiscard]] Duration mean() const;
    // The smallest bucket end that at least this share (0..1) of the values does not exceed; zero when empty.
    [[nodiscard]] Duration quantile(double share) const;
    // For charts, and to be added up over runs: the ends of steps of which there are 16 a power of two, and
    // how many values each step has; without the empty ones.
    [[nodiscard]] std::vector<std::pair<Duration, std::uint64_t>> distribution() const;

private:
    std::vector<std::uint64_t> buckets_;
    std::uint64_t count_ = 0;
    std::uint64_t over_ = 0;
    Duration max_{};
    double sum_ns_ = 0;
};

} // namespace syngate::load
