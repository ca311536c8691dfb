// SPDX-License-Identifier: GPL-2.0-or-later
// What the gate promises, at the rate for which it is promised.
#include "acceptance/acceptance.hpp"

namespace syngate::live {

using namespace std::chrono_literals;

TEST_F(Acceptance, HaproxyReloadEverySecond) {
    const auto m = measure({.server = {"haproxy", "-f", write_file("haproxy.cfg", haproxy_config())},
                            .options = {"--policy", "hold"}});
    if (!m.is_measured())
        GTEST_SKIP() << "no time was judged: the client itself was up to " << m.lateness_ms() << " ms late";
    EXPECT_LE(m.slowest_ms(), 500);
    EXPECT_LE(m.median_window_ms, 5);
}

// Nobody waits longer than the server was down, but for what it takes to serve those who waited.
TEST_F(Acceptance, HaproxyRestartEveryOtherSecond) {
    const auto m = measure({.server = {"haproxy", "-f", write_file("haproxy.cfg", haproxy_config())},
                            .options = {"--policy", "hold"},
                            .verb = "restart",
                            .period = 2s,
                            .in_all = duration_of_reloads() / 2});
    if (!m.is_measured())
        GTEST_SKIP() << "no time was judged: the client itself was up to " << m.lateness_ms() << " ms late";
    EXPECT_LE(m.slowest_ms(), m.longest_window_ms + 50);
}

TEST_F(Acceptance, NginxRestartEveryOtherSecond) {
    const auto m = measure({.server = nginx_argv(write_file("nginx.conf", nginx_config())),
                            .options = {"--policy", "hold"},
                            .verb = "restart",
                            .period = 2s,
                            .in_all = duration_of_reloads() / 2});
    if (!m.is_measured())
        GTEST_SKIP() << "no time was judged: the client itself was up to " << m.lateness_ms() << " ms late";
    EXPECT_LE(m.slowest_ms(), m.longest_window_ms + 50);
}

} // namespace syngate::live
