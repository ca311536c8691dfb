// SPDX-License-Identifier: GPL-2.0-or-later
#include "acceptance/acceptance.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <thread>

namespace syngate::live {
namespace {

constexpr std::uint16_t port = 8080;

// The schedule is the load's, not the server's: one that takes longer does not shift the next.
std::vector<nlohmann::json> swap_all(const Swaps& swaps, const Agent& agent) {
    std::vector<nlohmann::json> outcomes;
    const Time begin = Clock::now();
    for (Time next = begin + swaps.period; next < begin + swaps.in_all; next += swaps.period) {
        std::this_thread::sleep_until(next);
        outcomes.push_back(agent.ask(swaps.verb));
        EXPECT_EQ(outcomes.back()["exit"], 0) << outcomes.back().dump(2);
        EXPECT_EQ(outcomes.back()["replay_failed"], 0) << outcomes.back().dump(2);
        EXPECT_EQ(outcomes.back()["expired"], 0) << outcomes.back().dump(2);
        EXPECT_EQ(outcomes.back()["dropped"], 0) << outcomes.back().dump(2);
    }
    std::this_thread::sleep_until(begin + swaps.in_all);
    return outcomes;
}

void set_windows(Measured& measured) {
    std::vector<double> all;
    for (const auto& outcome : measured.outcomes)
        all.push_back(outcome["window_us"].get<double>() / 1000);
    if (all.empty())
        return;
    std::ranges::sort(all);
    measured.median_window_ms = all[all.size() / 2];
    measured.longest_window_ms = all.back();
}

void print(const Swaps& swaps, const Measured& m) {
    fmt::print(
        "{}: {} connections, {} of {} failed; latency p50 {:.2f}, p99 {:.2f}, p99.9 {:.2f}, max {:.2f} "
        "ms; {} times {}: window median {:.2f}, longest {:.2f} ms; the client was at most {:.2f} ms "
        "late\n",
        fmt::join(swaps.options, " "), m.load.started(), m.load.failed(), m.load.started(),
        m.load.latency_ms("p50"), m.load.latency_ms("p99"), m.load.latency_ms("p99_9"), m.slowest_ms(),
        m.outcomes.size(), swaps.verb, m.median_window_ms, m.longest_window_ms, m.lateness_ms());
}

} // namespace

Duration duration_of_reloads() {
    const char* text = std::getenv("SYNGATE_ACCEPTANCE_SECONDS");
    const int seconds = text == nullptr ? 0 : std::atoi(text);
    return std::chrono::seconds(seconds > 0 ? seconds : 60);
}

std::string Measured::why_not() const {
    return fmt::format("no time was judged: the client itself was up to {:.0f} ms late", lateness_ms());
}

Measured Acceptance::measure(const Swaps& swaps) {
    Measured measured;
    Agent agent({.server = swaps.server, .options = swaps.options});
    LoadRun run(hosts_.client,
                {.to = {fmt::format("{}:{}", ClientHost::server_v4, port),
                        fmt::format("[{}]:{}", ClientHost::server_v6, port)},
                 .rate = swaps.rate,
                 .more = {"--reset-close"}}); // in a minute there are more connections than ports
    measured.outcomes = swap_all(swaps, agent);
    measured.load = run.finish();
    set_windows(measured);
    print(swaps, measured);
    EXPECT_EQ(agent.stop(), (ExitStatus{0, 0}));
    EXPECT_EQ(measured.load.failed(), 0U) << measured.load.report.dump(2) << agent.log();
    EXPECT_EQ(measured.load.outcome("local"), 0U) << measured.load.report.dump(2);
    // As many as were asked for, else nothing was measured.
    EXPECT_GE(static_cast<double>(measured.load.started()),
              0.95 * swaps.rate * std::chrono::duration<double>(swaps.in_all).count());
    return measured;
}

} // namespace syngate::live
