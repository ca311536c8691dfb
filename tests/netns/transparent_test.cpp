// SPDX-License-Identifier: GPL-2.0-or-later
// Transparent proxying: HAProxy talks to its backends with its clients' addresses, without an iptables rule.
#include "netns/proxy_scene.hpp"

#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <thread>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;
using robust::Target;

const Target proxy_v4{ClientHost::server_v4, ProxyScene::proxy_port};
const Target proxy_v6{ClientHost::server_v6, ProxyScene::proxy_port};

// By hook, under which both programs share the interfaces.
class Transparent : public testing::TestWithParam<const char*> {
protected:
    static AgentPlan plan(const Argv& more = {}) {
        Argv options{"--hook", GetParam()};
        options.insert(options.end(), more.begin(), more.end());
        return {.server = haproxy_argv(ProxyScene::transparent_config()), .options = options};
    }
    void expect_the_clients_address() const {
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v4), ClientHost::client_v4);
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v6), ClientHost::client_v6);
    }
    const ProxyScene scene;
};

} // namespace

TEST_P(Transparent, TheBackendSeesTheClientsAddress) {
    const std::string before = network_state();
    const auto traces_before = traces();
    {
        Agent agent(plan());
        expect_the_clients_address();
        const auto status = agent.status()["transparent"];
        EXPECT_EQ(status["on"], true) << status.dump(2);
        EXPECT_GT(status["verdicts"]["diverted"], 0U) << status.dump(2);
        EXPECT_EQ(status["verdicts"]["not_transparent"], 0U) << status.dump(2);
        EXPECT_EQ(agent.stop(), (ExitStatus{0, 0})) << agent.log();
    }
    EXPECT_EQ(network_state(), before);
    EXPECT_EQ(traces(), traces_before);
}

// Without it nothing of the above works: the test's own scene does not.
TEST_P(Transparent, WithoutItTheBackendsAnswersAreForwarded) {
    Agent agent(plan({"--transparent", "off"}));
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v4, 0, 500ms), std::nullopt);
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v6, 0, 500ms), std::nullopt);
    EXPECT_EQ(agent.status()["transparent"]["on"], false);
}

INSTANTIATE_TEST_SUITE_P(Hooks, Transparent, testing::Values("tcx", "tc", "xdp"),
                         [](const auto& of) { return std::string(of.param); });

} // namespace syngate::live
