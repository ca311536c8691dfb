// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/histogram.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace syngate::load {

namespace {

constexpr unsigned bits = 7;
constexpr std::uint64_t linear = 1U << bits;
constexpr std::size_t bucket_count = (64 - bits + 1) * linear;

// Bucket b of the power with this shift holds the values whose bits above the shift are equal.
std::size_t bucket_of(std::uint64_t value) {
    if (value < linear)
        return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - bits - 1;
    return (shift + 1) * linear + ((value >> shift) - linear);
}

std::uint64_t last_value_of(std::size_t bucket) {
    if (bucket < linear)
        return bucket;
    const auto shift = static_cast<unsigned>(bucket / linear - 1);
    return ((linear + bucket % linear + 1) << shift) - 1;
}

} // namespace

Histogram::Histogram() : buckets_(bucket_count) {}

void Histogram::record(Duration d) {
    d = std::max(d, Duration::zero());
    ++buckets_[bucket_of(static_cast<std::uint64_t>(d.count()))];
    ++count_;
    over_ += d > threshold ? 1 : 0;
    max_ = std::max(max_, d);
    sum_ns_ += static_cast<double>(d.count());
}

Duration Histogram::mean() const {
    return count_ == 0 ? Duration::zero()
                       : Duration(static_cast<std::int64_t>(sum_ns_ / static_cast<double>(count_)));
}

Duration Histogram::quantile(double share) const {
    if (count_ == 0)
        return Duration::zero();
    const auto wanted = static_cast<std::uint64_t>(
        std::clamp(std::ceil(share * static_cast<double>(count_)), 1.0, static_cast<double>(count_)));
    std::uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
        seen += buckets_[bucket];
        if (seen >= wanted)
            return std::min(max_, Duration(static_cast<std::int64_t>(last_value_of(bucket))));
    }
    return max_;
}

std::vector<std::pair<Duration, std::uint64_t>> Histogram::distribution() const {
    constexpr std::size_t together = linear / 16;
    std::vector<std::pair<Duration, std::uint64_t>> steps;
    for (std::size_t first = 0; first < buckets_.size(); first += together) {
        std::uint64_t count = 0;
        for (std::size_t bucket = first; bucket < first + together; ++bucket)
            count += buckets_[bucket];
        if (count > 0)
            steps.emplace_back(Duration(static_cast<std::int64_t>(last_value_of(first + together - 1))),
                               count);
    }
    return steps;
}

} // namespace syngate::load
