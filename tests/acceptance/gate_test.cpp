// SPDX-License-Identifier: GPL-2.0-or-later
// What the gate promises, at the rate for which it is promised.
#include "acceptance/acceptance.hpp"

namespace syngate::live {

using namespace std::chrono_literals;

TEST_F(Acceptance, HaproxyReloadEverySecond) {
    const auto m = measure({.server = haproxy(), .options = {"--policy", "hold"}});
    if (!m.is_measured())
        GTEST_SKIP() << m.why_not();
    EXPECT_LE(m.slowest_ms(), 500);
    EXPECT_LE(m.median_window_ms, 5);
}

struct EachServer : Acceptance, testing::WithParamInterface<const char*> {};

// Nobody waits longer than the server was down, but for what it takes to serve those who waited.
TEST_P(EachServer, RestartEveryOtherSecond) {
    const bool nginx = GetParam() == std::string("nginx");
    const auto m =
        measure({.server = nginx ? nginx_argv(write_file("nginx.conf", nginx_config())) : haproxy(),
                 .options = {"--policy", "hold"},
                 .verb = "restart",
                 .period = 2s,
                 .in_all = duration_of_reloads() / 2});
    if (!m.is_measured())
        GTEST_SKIP() << m.why_not();
    EXPECT_LE(m.slowest_ms(), m.longest_window_ms + 50);
}

INSTANTIATE_TEST_SUITE_P(, EachServer, testing::Values("haproxy", "nginx"),
                         [](const auto& tested) { return std::string(tested.param); });

} // namespace syngate::live
