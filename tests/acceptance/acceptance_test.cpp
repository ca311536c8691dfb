// SPDX-License-Identifier: GPL-2.0-or-later
// The promises, at the rate for which they are given. Prints what was measured.
//
// SYNGATE_ACCEPTANCE_SECONDS: how long the reloads last, the restarts half of it (60)
#include "netns/sandbox.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <thread>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr double rate = 3000; // new connections a second

Duration duration_of_reloads() {
    const char* text = std::getenv("SYNGATE_ACCEPTANCE_SECONDS");
    const int seconds = text == nullptr ? 0 : std::atoi(text);
    return std::chrono::seconds(seconds > 0 ? seconds : 60);
}

struct Windows {
    double median_ms = 0;
    double longest_ms = 0;
};

Windows windows_of(const std::vector<nlohmann::json>& outcomes) {
    std::vector<double> all;
    for (const auto& outcome : outcomes)
        all.push_back(outcome["window_us"].get<double>() / 1000);
    std::ranges::sort(all);
    return all.empty() ? Windows{} : Windows{all[all.size() / 2], all.back()};
}

// The schedule is the load's, not the server's: one that takes longer does not shift the next.
std::vector<nlohmann::json> swap_every(Duration period, Duration in_all, const Agent& agent,
                                       const std::string& verb) {
    std::vector<nlohmann::json> outcomes;
    const Time begin = Clock::now();
    for (Time next = begin + period; next < begin + in_all; next += period) {
        std::this_thread::sleep_until(next);
        outcomes.push_back(agent.ask(verb));
        EXPECT_EQ(outcomes.back()["exit"], 0) << outcomes.back().dump(2);
        EXPECT_EQ(outcomes.back()["replay_failed"], 0) << outcomes.back().dump(2);
        EXPECT_EQ(outcomes.back()["expired"], 0) << outcomes.back().dump(2);
        EXPECT_EQ(outcomes.back()["dropped"], 0) << outcomes.back().dump(2);
    }
    std::this_thread::sleep_until(begin + in_all);
    return outcomes;
}

class Acceptance : public ::testing::Test {
protected:
    void measure(const Argv& server, const std::string& verb, Duration period, Duration in_all) {
        Agent agent({.server = server});
        LoadRun run(hosts_.client,
                    {.to = {fmt::format("{}:{}", ClientHost::server_v4, port),
                            fmt::format("[{}]:{}", ClientHost::server_v6, port)},
                     .rate = rate,
                     .more = {"--reset-close"}}); // in a minute there are more connections than ports
        const auto outcomes = swap_every(period, in_all, agent, verb);
        load_ = run.finish();
        windows_ = windows_of(outcomes);
        print(verb, outcomes.size());
        EXPECT_EQ(agent.stop(), (ExitStatus{0, 0}));
        EXPECT_EQ(load_.failed(), 0U) << load_.report.dump(2) << agent.log();
        EXPECT_EQ(load_.outcome("local"), 0U) << load_.report.dump(2);
        // As many as were asked for, else nothing was measured.
        EXPECT_GE(static_cast<double>(load_.started()),
                  0.95 * rate * std::chrono::duration<double>(in_all).count());
    }

    // Latencies count from the intended start, so that a client that is late itself measures the machine.
    [[nodiscard]] bool is_measured() const { return lateness_ms() <= 50; }
    [[nodiscard]] double lateness_ms() const { return load_.report["max_lateness_ms"].get<double>(); }
    [[nodiscard]] double slowest_ms() const { return load_.latency_ms("max"); }

    void print(const std::string& verb, std::size_t times) const {
        fmt::print(
            "{} connections, {} of {} failed; latency p50 {:.2f}, p99 {:.2f}, p99.9 {:.2f}, max {:.2f} "
            "ms; {} times {}: window median {:.2f}, longest {:.2f} ms; the client was at most {:.2f} ms "
            "late\n",
            load_.started(), load_.failed(), load_.started(), load_.latency_ms("p50"),
            load_.latency_ms("p99"), load_.latency_ms("p99_9"), slowest_ms(), times, verb, windows_.median_ms,
            windows_.longest_ms, lateness_ms());
    }

    ClientHost hosts_;
    LoadResult load_;
    Windows windows_;
};

} // namespace

TEST_F(Acceptance, HaproxyReloadEverySecond) {
    measure({"haproxy", "-f", write_file("haproxy.cfg", haproxy_config())}, "reload", 1s,
            duration_of_reloads());
    if (!is_measured())
        GTEST_SKIP() << "no time was judged: the client itself was up to " << lateness_ms() << " ms late";
    EXPECT_LE(slowest_ms(), 500);
    EXPECT_LE(windows_.median_ms, 5);
}

// Nobody waits longer than the server was down, but for what it takes to serve those who waited.
TEST_F(Acceptance, HaproxyRestartEveryOtherSecond) {
    measure({"haproxy", "-f", write_file("haproxy.cfg", haproxy_config())}, "restart", 2s,
            duration_of_reloads() / 2);
    if (!is_measured())
        GTEST_SKIP() << "no time was judged: the client itself was up to " << lateness_ms() << " ms late";
    EXPECT_LE(slowest_ms(), windows_.longest_ms + 50);
}

TEST_F(Acceptance, NginxRestartEveryOtherSecond) {
    measure(nginx_argv(write_file("nginx.conf", nginx_config())), "restart", 2s, duration_of_reloads() / 2);
    if (!is_measured())
        GTEST_SKIP() << "no time was judged: the client itself was up to " << lateness_ms() << " ms late";
    EXPECT_LE(slowest_ms(), windows_.longest_ms + 50);
}

} // namespace syngate::live
