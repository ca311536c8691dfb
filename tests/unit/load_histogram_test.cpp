// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/histogram.hpp"

#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace syngate::load {

using namespace std::chrono_literals;

TEST(LoadHistogram, IsZeroWhenEmpty) {
    const Histogram h;
    EXPECT_EQ(h.count(), 0U);
    EXPECT_EQ(h.quantile(0.5), 0ns);
    EXPECT_EQ(h.max(), 0ns);
    EXPECT_EQ(h.mean(), 0ns);
}

TEST(LoadHistogram, SmallValuesAreExact) {
    Histogram h;
    for (int i = 1; i <= 100; ++i)
        h.record(Duration(i));
    EXPECT_EQ(h.quantile(0.5), 50ns);
    EXPECT_EQ(h.quantile(0.99), 99ns);
    EXPECT_EQ(h.quantile(0), 1ns);
    EXPECT_EQ(h.quantile(1), 100ns);
}

TEST(LoadHistogram, QuantilesAreNeverTooSmallAndAtMostOne128thTooLarge) {
    std::mt19937_64 random(7);
    std::vector<std::int64_t> values;
    Histogram h;
    for (int i = 0; i < 50'000; ++i) {
        const auto value = static_cast<std::int64_t>(random() >> (24 + random() % 36));
        values.push_back(value);
        h.record(Duration(value));
    }
    std::ranges::sort(values);
    for (const double share : {0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0}) {
        const auto rank = static_cast<std::size_t>(std::ceil(share * 50'000)) - 1;
        const auto exact = values[rank];
        const auto got = h.quantile(share).count();
        EXPECT_GE(got, exact) << share;
        EXPECT_LE(got, exact + exact / 128 + 1) << share;
    }
    EXPECT_EQ(h.max().count(), values.back());
}

TEST(LoadHistogram, MaximumAndTheCountOverTheThresholdAreExact) {
    Histogram h;
    h.record(500ms);
    h.record(500ms + 1ns);
    h.record(1s + 7ns);
    h.record(-5ns); // an answer cannot be early; a clock step must not lose the count
    EXPECT_EQ(h.over_threshold(), 2U);
    EXPECT_EQ(h.max(), 1s + 7ns);
    EXPECT_EQ(h.quantile(1), 1s + 7ns);
    EXPECT_EQ(h.count(), 4U);
    EXPECT_EQ(h.quantile(0.25), 0ns);
}

TEST(LoadHistogram, TakesTheLongestDuration) {
    Histogram h;
    h.record(Duration::max());
    EXPECT_EQ(h.quantile(0.5), Duration::max());
}

TEST(LoadHistogram, TheDistributionHasEveryValueOnceAndBelowItsEnd) {
    Histogram h;
    EXPECT_TRUE(h.distribution().empty());
    std::mt19937_64 random(11);
    std::vector<std::int64_t> values;
    for (int i = 0; i < 10'000; ++i) {
        values.push_back(static_cast<std::int64_t>(random() >> (24 + random() % 36)));
        h.record(Duration(values.back()));
    }
    Duration before{-1};
    std::uint64_t sum = 0;
    for (const auto& [end, count] : h.distribution()) {
        EXPECT_GT(end, before);
        const auto within = std::ranges::count_if(
            values, [&, from = before.count(), to = end.count()](auto v) { return v > from && v <= to; });
        EXPECT_EQ(static_cast<std::int64_t>(count), within) << end.count();
        sum += count;
        before = end;
    }
    EXPECT_EQ(sum, h.count());
}

} // namespace syngate::load
