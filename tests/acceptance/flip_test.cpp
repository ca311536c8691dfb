// SPDX-License-Identifier: GPL-2.0-or-later
// What policy flip promises: a reload every half second, and nobody is lost. How long it takes them, beside
// HAProxy's own socket passing, is measured by `script/bench reload`.
#include "acceptance/acceptance.hpp"

#include <fmt/format.h>

namespace syngate::live {
namespace {

using namespace std::chrono_literals;

struct FlipAcceptance : Acceptance {
    static Argv haproxy() {
        return {"haproxy", "-f",
                write_file("flip.cfg", haproxy_config({.bind_options = "shards by-thread",
                                                       .global = "    nbthread 2\n"}))};
    }

    // Nobody waits at a gate, nobody is lost.
    void flip_each_half_second(double rate) {
        const auto m =
            measure({.server = haproxy(), .options = {"--policy", "flip"}, .period = 500ms, .rate = rate});
        EXPECT_FALSE(m.outcomes.empty());
        for (const auto& outcome : m.outcomes) {
            EXPECT_EQ(outcome["gated"], "");
            EXPECT_EQ(outcome["flipped"], "8080");
        }
    }

    // The highest rate at which nothing fails or is late with no reload at all.
    double bearable() {
        double best = 3000;
        for (const double rate : {6000., 9000., 12000., 15000., 18000.}) {
            Agent agent({.server = haproxy(), .options = {"--policy", "hold"}});
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

TEST_F(FlipAcceptance, HaproxyWithShards) {
    flip_each_half_second(3000);
}

// Three quarters of it: a reload starts a server, and needs the machine as well.
TEST_F(FlipAcceptance, TheMostThatTheMachineBears) {
    flip_each_half_second(bearable() * 0.75);
}

TEST_F(FlipAcceptance, NginxWithReuseport) {
    measure({.server = nginx_argv(
                 write_file("nginx.conf", nginx_config({.listen_options = "reuseport", .workers = 2}))),
             .options = {"--policy", "flip"},
             .period = 500ms,
             .in_all = duration_of_reloads() / 2});
}

} // namespace syngate::live
