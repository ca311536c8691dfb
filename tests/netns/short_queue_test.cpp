// SPDX-License-Identifier: GPL-2.0-or-later
// A server that queues few connections: what was held comes no faster than it accepts.
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"
#include "netns/sandbox.hpp"

#include <atomic>
#include <gtest/gtest.h>
#include <thread>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 80;
constexpr std::size_t clients = 40;
constexpr int backlog = 4;

// Needs a millisecond for each connection.
class SlowServer {
public:
    [[nodiscard]] std::size_t accepted() const { return accepted_; }

private:
    Listener listener_{port, backlog};
    std::atomic<std::size_t> accepted_ = 0;
    std::jthread thread_{[this](const std::stop_token& stop) {
        while (!stop.stop_requested())
            if (listener_.has_pending(10ms)) {
                std::this_thread::sleep_for(1ms);
                (void)listener_.accept();
                ++accepted_;
            }
    }};
};

std::string overflows() {
    return run({"nstat", "-asz", "TcpExtListenOverflows", "TcpExtListenDrops"}).out;
}

struct ShortQueue : testing::TestWithParam<const char*> {};

} // namespace

TEST_P(ShortQueue, LosesNobodyWhoWasHeld) {
    const ClientHost hosts;
    const SlowServer server;
    const std::string way = GetParam();
    Argv arguments{"--ports", "80", "--policy", "hold", "--lease", "20s"};
    SpawnOptions options;
    if (way == "nft" || way == "legacy") {
        arguments.insert(arguments.end(), {"--mode", "iptables"});
        options.extra_env.push_back(only_variant(way));
    } else {
        arguments.insert(arguments.end(), {"--mode", "bpf", "--hook", way});
    }
    Closed agent(arguments, options);
    std::vector<Fd> connecting;
    for (std::size_t i = 0; i < clients; ++i)
        connecting.push_back(begin_to_connect(
            hosts.client, {i % 2 == 1 ? ClientHost::server_v6 : ClientHost::server_v4, port}));
    ASSERT_TRUE(wait_until([&] { return agent.ask("status")["gate"]["verdicts"]["parked"] == clients; }));
    const std::string before = overflows();
    agent.end();
    EXPECT_TRUE(wait_until([&] { return server.accepted() == clients; })) << server.accepted();
    EXPECT_EQ(overflows(), before);
}

INSTANTIATE_TEST_SUITE_P(Ways, ShortQueue, testing::Values("tcx", "xdp", "nft", "legacy"),
                         [](const auto& of) { return std::string(of.param); });

} // namespace syngate::live::robust
