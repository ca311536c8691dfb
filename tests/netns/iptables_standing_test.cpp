// SPDX-License-Identifier: GPL-2.0-or-later
// What iptables does as long as the agent lives, flips and intercepted connections: what becomes of it when
// the agent is gone or an extension is missing, and that only our rules are touched. What a client sees is
// conformance_test's, transparent_test's and intercept_test's.
#include "netns/iptables.hpp"
#include "netns/proxy_scene.hpp"
#include "netns/robust_agent.hpp"

#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t other_port = 8081;

std::string variant_of(const testing::TestParamInfo<const char*>& info) {
    return info.param;
}

// The rules of an administrator in the tables and chains that ours are in.
void add_others(const std::string& variant) {
    for (const std::string family : {"iptables", "ip6tables"})
        for (const Argv& rule :
             {Argv{"-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "7", "-j", "REDIRECT",
                   "--to-ports", "9"},
              Argv{"-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "RETURN"},
              Argv{"-t", "mangle", "-A", "PREROUTING", "-p", "udp", "-j", "MARK", "--set-xmark", "7/0xff"}}) {
            Argv argv{fmt::format("{}-{}", family, variant), "-w"};
            argv.insert(argv.end(), rule.begin(), rule.end());
            must_run(argv);
        }
}

bool has_arrived(const Listener& at, Duration patience = 5s) {
    if (!at.has_pending(patience))
        return false;
    const Fd accepted = at.accept();
    return true;
}

class IptablesFlip : public testing::TestWithParam<const char*> {
protected:
    IptablesFlip() {
        make_legacy_tables();
        before = all_rules();
    }
    [[nodiscard]] static SpawnOptions by(const std::string& without = "") {
        return {.extra_env = {only_variant(GetParam(), without)}};
    }
    static RunResult flip(const Argv& more, const std::string& without = "") {
        Argv argv{"flip"};
        argv.insert(argv.end(), more.begin(), more.end());
        return cli(argv, by(without));
    }
    static nlohmann::json status() { return nlohmann::json::parse(cli({"status", "--json"}).out); }
    static void kill_agent() {
        const pid_t agent = status()["agent"]["pid"];
        ASSERT_EQ(::kill(agent, SIGKILL), 0);
        ASSERT_TRUE(wait_until([&] { return !processes().contains(agent); }));
    }

    ClientHost hosts;
    Target v4{ClientHost::server_v4, port};
    Target v6{ClientHost::server_v6, port};
    std::string before;
};

} // namespace

TEST_P(IptablesFlip, LeadsFromOnePortToAnotherAndBack) {
    add_others(GetParam());
    before = all_rules();
    const Listener first(port), second(other_port);
    const auto flipped = flip({"8080=8081", "--mode", "iptables"});
    ASSERT_EQ(flipped.out, "flipped 8080=8081\n") << flipped.err;
    for (const Target& to : {v4, v6}) {
        const Fd remote = connect_from(hosts.client, to);
        EXPECT_TRUE(has_arrived(second)) << to.address;
        const Fd local = connect_from(hosts.server, to);
        EXPECT_TRUE(has_arrived(second)) << to.address;
    }
    Fd loopback = connect_from(hosts.server, {"127.0.0.1", port});
    EXPECT_TRUE(has_arrived(second));
    EXPECT_FALSE(has_arrived(first, 0ms));
    const auto steering = status()["steering"];
    EXPECT_EQ(steering["mode"], "iptables");
    EXPECT_TRUE(wait_until([] { return status()["steering"]["verdicts"]["steered"] == 5; }))
        << status()["steering"];
    // Another port beside it, then this one back.
    EXPECT_EQ(flip({"8082=8081"}).out, "flipped 8080=8081 8082=8081\n");
    EXPECT_EQ(flip({"--clear", "8080"}).out, "flipped 8082=8081\n");
    Fd back = connect_from(hosts.client, v4);
    EXPECT_TRUE(has_arrived(first));
    Fd still = connect_from(hosts.client, {ClientHost::server_v6, 8082});
    EXPECT_TRUE(has_arrived(second));
    EXPECT_EQ(flip({"--clear"}).out, "nothing is flipped\n");
    EXPECT_TRUE(wait_until([&] { return !cli({"status"}).ok(); }));
    // Others' rules of the same tables are as they were, and ours gone with the connections that need them.
    for (Fd* each : {&loopback, &back, &still})
        each->reset();
    EXPECT_TRUE(wait_until([&] { return cli({"cleanup"}, by()).ok() && all_rules() == before; }))
        << all_rules();
}

// A socket of one address only, of which the rule must not speak to others, and another one's that is left
// alone.
TEST_P(IptablesFlip, AnAddressIsKept) {
    must_run({"ip", "address", "add", "10.77.0.9/32", "dev", ClientHost::server_device});
    must_run({"ip", "address", "add", "10.77.0.8/32", "dev", ClientHost::server_device});
    const auto listen_on = [](const char* address, std::uint16_t at) {
        return start_server({"python3", "-c",
                             "import socket, sys\n"
                             "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
                             "while True:\n"
                             " c = s.accept()[0]\n"
                             " c.recv(100)\n"
                             " c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + "
                             "(':'.join(sys.argv[1:])).encode())\n"
                             " c.close()",
                             address, std::to_string(at)},
                            {at});
    };
    const auto one = listen_on("10.77.0.9", other_port);
    ASSERT_TRUE(flip({"8080=8081", "--mode", "iptables"}).ok());
    EXPECT_EQ(http_get(hosts.client, {"10.77.0.9", port}), "10.77.0.9:8081");
    EXPECT_EQ(http_get(hosts.server, {"10.77.0.9", port}), "10.77.0.9:8081");
    EXPECT_EQ(knock(hosts.client, {"10.77.0.8", port}), Reply::refused);
    EXPECT_TRUE(flip({"--clear"}).ok());
}

// The chain that nothing leads to keeps conntrack at work for a connection that was led, until it has ended.
TEST_P(IptablesFlip, AConnectionGoesOnAfterTheFlipAndItsAgentHaveEnded) {
    const Listener second(other_port);
    ASSERT_TRUE(flip({"8080=8081", "--mode", "iptables"}).ok());
    Fd client = connect_from(hosts.client, v4);
    ASSERT_TRUE(second.has_pending(5s));
    Fd accepted = second.accept();
    ASSERT_TRUE(flip({"--clear"}).ok());
    ASSERT_TRUE(wait_until([&] { return !cli({"status"}).ok(); }));
    EXPECT_EQ(knock(hosts.client, v4), Reply::refused);
    for (const bool swept : {false, true}) {
        if (swept) {
            EXPECT_TRUE(cli({"cleanup"}, by()).ok());
        }
        for (const auto& [from, to] : {std::pair{&client, &accepted}, std::pair{&accepted, &client}}) {
            char byte = 'x';
            const timeval patience{.tv_sec = 5, .tv_usec = 0};
            ::setsockopt(to->get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
            ASSERT_EQ(::send(from->get(), &byte, 1, MSG_NOSIGNAL), 1);
            EXPECT_EQ(::recv(to->get(), &byte, 1, 0), 1) << swept;
        }
        EXPECT_TRUE(all_rules().contains("--to-destination :8081")) << all_rules();
        EXPECT_FALSE(all_rules().contains("-j SYNGATE-")) << all_rules();
    }
    client.reset();
    accepted.reset();
    EXPECT_TRUE(wait_until([&] { return cli({"cleanup"}, by()).ok() && all_rules() == before; }))
        << all_rules();
}

TEST_P(IptablesFlip, EndsByItselfAfterSigkillAndIsSwept) {
    const Listener first(port), second(other_port);
    for (const char* without : {"", "xt_recent"}) {
        ASSERT_TRUE(flip({"8080=8081", "--mode", "iptables", "--lease", "100ms"}, without).ok());
        const Fd flipped = connect_from(hosts.client, v4);
        EXPECT_TRUE(has_arrived(second));
        // Longer than the lease, which the agent renews.
        const auto began = Clock::now();
        while (Clock::now() - began < 1500ms) {
            const Fd again = connect_from(hosts.client, v6);
            EXPECT_TRUE(has_arrived(second));
        }
        kill_agent();
        EXPECT_TRUE(wait_until(
            [&] {
                const Fd connection = connect_from(hosts.client, v6);
                return has_arrived(first, 20ms) || !has_arrived(second, 20ms);
            },
            5s))
            << without;
    }
    const Fd own = connect_from(hosts.client, v4);
    EXPECT_TRUE(has_arrived(first));
    EXPECT_NE(all_rules(), before);
    EXPECT_TRUE(wait_until([&] { return cli({"cleanup"}, by()).ok() && all_rules() == before; }))
        << all_rules();
}

// As on a busy machine: a change takes longer than the lease of what it replaces.
TEST_P(IptablesFlip, LastsWhileProgramsAreSlow) {
    const Listener second(other_port), third(8082);
    for (const char* family : {"iptables", "ip6tables"}) {
        const auto name = fmt::format("{}-{}-restore", family, GetParam());
        const auto slow = write_file("slow/" + name, fmt::format("#!/bin/sh\n"
                                                                 "[ -e {}/is-slow ] && sleep 2\n"
                                                                 "exec /usr/sbin/{} \"$@\"\n",
                                                                 scratch(), name));
        ASSERT_EQ(::chmod(slow.c_str(), 0755), 0);
    }
    auto slowly = by();
    slowly.extra_env.emplace_back("PATH", fmt::format("{}/slow:{}", scratch(), std::getenv("PATH")));
    const auto begun = cli({"flip", "8080=8081", "--mode", "iptables", "--lease", "100ms"}, slowly);
    ASSERT_TRUE(begun.ok()) << begun.err;
    const auto slow = write_file("is-slow", "");
    Process changing(syngate({"flip", "8080=8082"}));
    std::size_t knocks = 0;
    for (; changing.runs(); ++knocks)
        for (const Target& to : {v4, v6}) {
            ASSERT_EQ(knock(hosts.client, to), Reply::connected) << knocks;
            ASSERT_TRUE(has_arrived(second, 0ms) || has_arrived(third));
        }
    EXPECT_EQ(changing.wait(), (ExitStatus{0, 0})) << changing.err();
    EXPECT_GT(knocks, 10U);
    ASSERT_EQ(::unlink(slow.c_str()), 0);
    EXPECT_TRUE(flip({"--clear"}).ok());
}

// A firewall that is loaded anew takes ours with it; they are put back.
TEST_P(IptablesFlip, RulesThatAnotherRemovesArePutBack) {
    const Listener second(other_port);
    ASSERT_TRUE(flip({"8080=8081", "--mode", "iptables", "--lease", "200ms"}).ok());
    for (const char* family : {"iptables", "ip6tables"}) {
        must_run({fmt::format("{}-{}", family, GetParam()), "-w", "-t", "nat", "-F"});
        must_run({fmt::format("{}-{}", family, GetParam()), "-w", "-t", "nat", "-X"});
    }
    EXPECT_TRUE(wait_until([&] { return knock(hosts.client, v4) == Reply::connected; }));
    EXPECT_TRUE(wait_until([&] { return knock(hosts.client, v6) == Reply::connected; }));
    EXPECT_TRUE(flip({"--clear"}).ok());
}

TEST_P(IptablesFlip, WhatIsMissingIsNamed) {
    const Listener second(other_port);
    for (const char* without : {"xt_DNAT", "xt_addrtype", "xt_recent,xt_time"}) {
        const auto refused = flip({"8080=8081", "--mode", "iptables"}, without);
        EXPECT_EQ(refused.status, (ExitStatus{3, 0})) << refused.err;
        EXPECT_NE(refused.err.find("switched off by SYNGATE_NO_FEATURE"), refused.err.npos) << refused.err;
    }
    const auto intercepting = write_file("plain.cfg", haproxy_config());
    for (const char* without : {"xt_TPROXY", "xt_socket", "xt_mark", "xt_addrtype"}) {
        const auto refused =
            cli({"run", "--mode", "iptables", "--intercept", "80=8888", "--", "haproxy", "-f", intercepting},
                by(without));
        EXPECT_EQ(refused.status, (ExitStatus{3, 0})) << refused.err;
        EXPECT_NE(refused.err.find(fmt::format("{}: switched off", without)), refused.err.npos)
            << refused.err;
    }
    EXPECT_EQ(all_rules(), before);
}

INSTANTIATE_TEST_SUITE_P(Variants, IptablesFlip, testing::Values("nft", "legacy"), variant_of);

namespace {

class IptablesIntercept : public testing::TestWithParam<const char*> {
protected:
    IptablesIntercept() {
        make_legacy_tables();
        before = network_state() + all_rules();
    }
    [[nodiscard]] static Argv plan(const Argv& more) {
        Argv argv{"run", "--mode", "iptables", "--intercept", "80=8888", "--lease", "100ms"};
        argv.insert(argv.end(), more.begin(), more.end());
        argv.emplace_back("--");
        for (const auto& word : haproxy_argv(ProxyScene::intercepting_config({8888})))
            argv.push_back(word);
        return argv;
    }
    const ProxyScene scene;
    std::string before;
};

} // namespace

// Its server lives on and gets what is intercepted, until the lease has ended: whatever the server does then,
// no connection is lost. What is established goes on.
TEST_P(IptablesIntercept, EndsByItselfAfterSigkillAndIsSwept) {
    const Target web{ProxyScene::backend_v4, 80};
    for (const char* without : {"", "xt_recent"}) {
        Agent agent(plan({}), {.extra_env = {only_variant(GetParam(), without)}});
        ASSERT_TRUE(wait_until([&] { return http_get(scene.hosts.client, web) == "10.88.0.2 80 by 8888"; }));
        agent.kill();
        EXPECT_TRUE(
            wait_until([&] { return http_get(scene.hosts.client, web) == ClientHost::client_v4; }, 5s));
        EXPECT_NE(network_state() + all_rules(), before);
        EXPECT_TRUE(cli({"cleanup"}).ok());
        EXPECT_EQ(network_state() + all_rules(), before);
    }
}

// A transparent listener that goes while the agent lives: TPROXY would drop.
TEST_P(IptablesIntercept, FollowsTheListener) {
    const Target web{ProxyScene::backend_v6, 80};
    Argv argv = plan({"--ports", "8080"});
    argv.resize(static_cast<std::size_t>(std::ranges::find(argv, "--") - argv.begin()) + 1);
    argv.insert(argv.end(), {"haproxy", "-f", write_file("plain.cfg", haproxy_config())});
    Agent agent(argv, {.extra_env = {only_variant(GetParam())}});
    const auto arrives_at = [&](const std::string& whom) {
        return wait_until([&] { return http_get(scene.hosts.client, web, 0, 1s) == whom; });
    };
    EXPECT_TRUE(arrives_at(ClientHost::client_v6));
    {
        const auto proxy = start_server(haproxy_argv(ProxyScene::intercepting_config({8888})), {8888});
        EXPECT_TRUE(arrives_at("fd00:88::2 80 by 8888"));
    }
    EXPECT_TRUE(arrives_at(ClientHost::client_v6));
}

// A flip is for this host's own addresses: forwarded connections to the same port number are nobody's here.
TEST_P(IptablesIntercept, AFlipLeavesForwardedConnectionsAlone) {
    const Listener second(other_port);
    const SpawnOptions by{.extra_env = {only_variant(GetParam())}};
    ASSERT_TRUE(cli({"flip", "9000=8081", "--mode", "iptables"}, by).ok());
    EXPECT_EQ(knock(scene.hosts.client, {ClientHost::server_v4, 9000}), Reply::connected);
    EXPECT_EQ(http_get(scene.hosts.client, {ProxyScene::backend_v4, 9000}), ClientHost::client_v4);
    EXPECT_EQ(http_get(scene.hosts.client, {ProxyScene::backend_v6, 9000}), ClientHost::client_v6);
    EXPECT_TRUE(cli({"flip", "--clear"}).ok());
}

INSTANTIATE_TEST_SUITE_P(Variants, IptablesIntercept, testing::Values("nft", "legacy"), variant_of);

} // namespace syngate::live::robust
