// SPDX-License-Identifier: GPL-2.0-or-later
// What policy flip promises: a reload every half second, and no worse than HAProxy's own socket passing in
// the same run.
#include "acceptance/acceptance.hpp"

#include <fmt/format.h>

namespace syngate::live {
namespace {

using namespace std::chrono_literals;

struct FlipAcceptance : Acceptance {
    const std::string shards = "    nbthread 2\n";

    Swaps flip(double rate) const {
        return {
            .server = haproxy("flip.cfg"), .options = {"--policy", "flip"}, .period = 500ms, .rate = rate};
    }
    // With such a socket in its configuration a new HAProxy takes the old one's listeners over (-x).
    Swaps socket_passing(double rate) const {
        return {.server = haproxy(
                    "passing.cfg",
                    fmt::format("    stats socket {}/sockets level admin expose-fd listeners\n", scratch())),
                .options = {"--policy", "hold"},
                .period = 500ms,
                .rate = rate};
    }
    Argv haproxy(const std::string& file, const std::string& more = {}) const {
        return {
            "haproxy", "-f",
            write_file(file, haproxy_config({.bind_options = "shards by-thread", .global = shards + more}))};
    }

    // A B B A. What disturbs the machine disturbs one round, and does not decide.
    void compare(double rate) {
        constexpr int rounds = 10;
        std::vector<double> ratios;
        bool measured = true;
        for (int round = 0; round < rounds; ++round) {
            double ours = 0, theirs = 0;
            std::vector both{std::pair(flip(rate), &ours), std::pair(socket_passing(rate), &theirs)};
            if (round % 2 == 1)
                std::swap(both[0], both[1]);
            for (auto& [swaps, p99_9] : both) {
                swaps.in_all = duration_of_reloads() / (2 * rounds);
                const auto m = measure(swaps);
                *p99_9 = m.load.latency_ms("p99_9");
                measured &= m.is_measured();
                for (const auto& outcome : m.outcomes) {
                    EXPECT_EQ(outcome["gated"], "");
                    EXPECT_EQ(outcome["flipped"], p99_9 == &ours ? "8080" : "");
                }
            }
            ratios.push_back(ours / theirs);
        }
        std::ranges::sort(ratios);
        const double median = (ratios[rounds / 2 - 1] + ratios[rounds / 2]) / 2;
        fmt::print("p99.9 at {} a second, flip over socket passing: {:.2f} (median of {} rounds, {:.2f} to "
                   "{:.2f})\n",
                   rate, median, rounds, ratios.front(), ratios.back());
        if (!measured)
            GTEST_SKIP() << "no time was judged: the client itself was late";
        EXPECT_LE(median, 1);
    }

    // The highest rate at which nothing fails or is late with no reload at all.
    double bearable() {
        double best = 3000;
        for (const double rate : {6000., 9000., 12000., 15000., 18000.}) {
            Agent agent({.server = haproxy("bearable.cfg"), .options = {"--policy", "hold"}});
            const auto load = run_load(hosts_.client,
                                       {.to = {fmt::format("{}:8080", ClientHost::server_v4)},
                                        .rate = rate,
                                        .more = {"--reset-close"}},
                                       "3s");
            agent.stop();
            if (load.failed() > 0 || load.report["max_lateness_ms"].get<double>() > 20 ||
                load.latency_ms("p99_9") > 20)
                break;
            best = rate;
        }
        return best;
    }
};

} // namespace

TEST_F(FlipAcceptance, HaproxyWithShardsBesideItsOwnSocketPassing) {
    compare(3000);
}

// Three quarters of it: a reload starts a server, and needs the machine as well.
TEST_F(FlipAcceptance, TheMostThatTheMachineBears) {
    compare(bearable() * 0.75);
}

TEST_F(FlipAcceptance, NginxWithReuseport) {
    measure({.server = nginx_argv(
                 write_file("nginx.conf", nginx_config({.listen_options = "reuseport", .workers = 2}))),
             .options = {"--policy", "flip"},
             .period = 500ms,
             .in_all = duration_of_reloads() / 2});
}

} // namespace syngate::live
