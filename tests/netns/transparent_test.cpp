// SPDX-License-Identifier: GPL-2.0-or-later
// Transparent proxying: HAProxy talks to its backends with its clients' addresses, by BPF without an iptables
// rule, and by iptables without BPF.
#include "netns/iptables.hpp"
#include "netns/proxy_scene.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <gtest/gtest.h>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;
using robust::Target;

const Target proxy_v4{ClientHost::server_v4, ProxyScene::proxy_port};
const Target proxy_v6{ClientHost::server_v6, ProxyScene::proxy_port};

// By hook, under which both programs share the interfaces, and by variant of iptables.
class Transparent : public testing::TestWithParam<const char*> {
protected:
    static AgentPlan plan(const Argv& more = {}) {
        return by_way(GetParam(),
                      {.server = haproxy_argv(ProxyScene::transparent_config()), .options = more});
    }
    void expect_the_clients_address() const {
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v4), ClientHost::client_v4);
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v6), ClientHost::client_v6);
    }
    const ProxyScene scene;
};

} // namespace

TEST_P(Transparent, TheBackendSeesTheClientsAddress) {
    make_legacy_tables();
    const std::string before = network_state() + all_rules();
    const auto traces_before = traces();
    {
        StoppedAgent agent(plan());
        expect_the_clients_address();
        const auto status = agent.status()["transparent"];
        EXPECT_EQ(status["on"], true) << status.dump(2);
        EXPECT_TRUE(wait_until([&] { return agent.status()["transparent"]["verdicts"]["diverted"] > 0U; }));
        EXPECT_EQ(status["verdicts"].value("not_transparent", 0U), 0U) << status.dump(2);
        EXPECT_EQ(agent.status()["gate"]["mode"], is_bpf(GetParam()) ? "bpf" : "iptables");
        EXPECT_EQ(agent.stop(), (ExitStatus{0, 0})) << agent.log();
    }
    EXPECT_EQ(network_state() + all_rules(), before);
    EXPECT_EQ(traces(), traces_before);
}

// Without it nothing of the above works: the test's own scene does not.
TEST_P(Transparent, WithoutItTheBackendsAnswersAreForwarded) {
    if (!is_bpf(GetParam()))
        return; // the same for every way, and HAProxy takes its time to give up
    StoppedAgent agent(plan({"--transparent", "off"}));
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v4, 0, 500ms), std::nullopt);
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v6, 0, 500ms), std::nullopt);
    EXPECT_EQ(agent.status()["transparent"]["on"], false);
}

TEST_P(Transparent, ForwardedTrafficOfOthersIsUntouched) {
    StoppedAgent agent(plan());
    const auto diverted = [&] { return agent.status()["transparent"]["verdicts"]["diverted"]; };
    const auto none = diverted();
    for (const char* address : {ProxyScene::backend_v4, ProxyScene::backend_v6})
        EXPECT_TRUE(http_get(scene.hosts.client, {address, ProxyScene::backend_port})) << address;
    EXPECT_FALSE(wait_until([&] { return diverted() != none; }, std::chrono::milliseconds(1500)));
}

TEST_P(Transparent, ReloadsUnderLoadLoseNothing) {
    StoppedAgent agent(plan());
    LoadRun load(scene.hosts.client, {.to = {"10.77.0.1:8080", "[fd00:77::1]:8080"}, .rate = 400});
    for (int i = 0; i < 4; ++i)
        EXPECT_EQ(agent.ask("reload")["exit"], 0);
    EXPECT_EQ(agent.ask("restart")["exit"], 0);
    const auto result = load.finish();
    EXPECT_EQ(result.failed(), 0U) << result.report.dump(2) << agent.log();
    EXPECT_GT(result.outcome("ok"), 20U);
}

// `usesrc client`: the connection to the backend has the client's port too. Whoever closes first has it in
// TIME_WAIT.
TEST_P(Transparent, AClientsPortIsReusedWithinTimeWait) {
    std::string config = read_file(ProxyScene::transparent_config());
    for (std::size_t at = 0; (at = config.find("clientip", at)) != config.npos; ++at)
        config.replace(at, 8, "client");
    StoppedAgent agent(by_way(GetParam(), {.server = haproxy_argv(write_file("client-port.cfg", config))}));
    // HAProxy refuses at once while its former connection with the port is still closing; what hangs takes
    // all of its time, and is not tried again.
    const auto reuse = [&](const robust::Target& to) {
        const Time deadline = Clock::now() + 5s;
        for (;;) {
            const Time began = Clock::now();
            const auto answer = http_get(scene.hosts.client, to, 40000, 900ms);
            if (answer || Clock::now() - began >= 900ms || Clock::now() > deadline)
                return answer;
        }
    };
    for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(reuse(proxy_v4), ClientHost::client_v4) << i;
        EXPECT_EQ(reuse(proxy_v6), ClientHost::client_v6) << i;
    }
}

// Such as those that path MTU discovery lives by.
TEST_P(Transparent, IcmpErrorsReachTheProxysSocket) {
    const SpawnOptions at_backend{.where = &scene.backend};
    for (const char* iptables : {"iptables", "ip6tables"})
        must_run({iptables, "-I", "INPUT", "-p", "tcp", "--dport", "9000", "-j", "REJECT"}, at_backend);
    StoppedAgent agent(plan());
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v4, 0, 300ms), std::nullopt);
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v6, 0, 300ms), std::nullopt);
    EXPECT_TRUE(
        wait_until([&] { return agent.status()["transparent"]["verdicts"]["diverted_error"] >= 2U; }));
}

INSTANTIATE_TEST_SUITE_P(Hooks, Transparent, testing::Values("tcx", "tc", "xdp", "nft", "legacy"),
                         [](const auto& of) { return std::string(of.param); });

// What it does to the rules and routes of this host.
class TransparentRouting : public testing::Test {
protected:
    TransparentRouting() {
        // Others' of the same kind, to be left alone.
        for (const char* family : {"-4", "-6"}) {
            must_run({"ip", family, "rule", "add", "fwmark", "0x1", "lookup", "100"});
            must_run({"ip", family, "route", "add", "local", "default", "dev", "lo", "table", "100"});
            must_run({"ip", family, "rule", "add", "priority", "8299", "fwmark", "0x2", "lookup", "101"});
        }
        must_run({"iptables", "-t", "mangle", "-N", "DIVERT"});
        must_run({"iptables", "-t", "mangle", "-A", "PREROUTING", "-p", "udp", "-j", "DIVERT"});
        before = network_state();
    }
    ~TransparentRouting() override {
        for (const char* family : {"-4", "-6"}) {
            run({"ip", family, "rule", "delete", "fwmark", "0x1", "lookup", "100"});
            run({"ip", family, "route", "flush", "table", "100"});
            run({"ip", family, "rule", "delete", "priority", "8299"});
        }
        run({"iptables", "-t", "mangle", "-F"});
        run({"iptables", "-t", "mangle", "-X"});
    }
    static Argv server() { return haproxy_argv(ProxyScene::transparent_config()); }
    static Argv run_verb(const Argv& options = {}) {
        Argv argv{"run"};
        argv.insert(argv.end(), options.begin(), options.end());
        argv.emplace_back("--");
        for (const auto& word : server())
            argv.push_back(word);
        return argv;
    }
    static std::string rules() { return must_run({"ip", "-4", "rule"}) + must_run({"ip", "-6", "rule"}); }
    const ProxyScene scene;
    std::string before;
};

TEST_F(TransparentRouting, IsAllGoneAfterACleanStop) {
    StoppedAgent agent({.server = server()});
    EXPECT_NE(network_state(), before);
    EXPECT_EQ(agent.stop(), (ExitStatus{0, 0})) << agent.log();
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, OfAKilledAgentIsSweptByTheNextStart) {
    {
        robust::Agent killed(run_verb({"--mark", "0x40", "--table", "7000", "--rule-priority", "700"}));
        killed.kill();
        EXPECT_NE(rules().find("fwmark 0x40/0x40 lookup 7000"), std::string::npos) << rules();
        robust::Agent next(run_verb({"--transparent", "off", "--ports", "81"})); // whether transparent or not
        EXPECT_EQ(network_state(), before);
    }
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, OfAKilledAgentIsReplacedByTheNextTransparentOne) {
    robust::Agent killed(run_verb());
    killed.kill();
    StoppedAgent next({.server = server()});
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v4), ClientHost::client_v4);
    EXPECT_EQ(next.stop(), (ExitStatus{0, 0})) << next.log();
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, OfAKilledAgentIsCleanedUp) {
    robust::Agent killed(run_verb());
    EXPECT_EQ(robust::cli({"cleanup"}).out, "nothing was left behind\n") << "it lives";
    EXPECT_EQ(http_get(scene.hosts.client, proxy_v6), ClientHost::client_v6);
    killed.kill();
    const auto cleaned = robust::cli({"cleanup"});
    EXPECT_NE(cleaned.out.find("fwmark"), std::string::npos) << cleaned.out;
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, ACollisionChangesNothing) {
    must_run({"ip", "-6", "rule", "add", "priority", "8300", "fwmark", "0x77", "lookup", "101"});
    const std::string now = network_state();
    const auto refused = robust::cli(run_verb({"--transparent", "on"}));
    EXPECT_EQ(refused.status.code, 4) << refused.err;
    EXPECT_NE(refused.err.find("--rule-priority"), std::string::npos) << refused.err;
    EXPECT_EQ(network_state(), now);
    {
        StoppedAgent agent({.server = server(), .options = {"--rule-priority", "8290"}});
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v6), ClientHost::client_v6);
    }
    must_run({"ip", "-6", "rule", "delete", "priority", "8300"});
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, OfTwoAgentsOneHasItAndServesBoth) {
    StoppedAgent first({.server = server()});
    const std::string with_one = network_state();
    std::string config = read_file(ProxyScene::transparent_config());
    for (std::size_t at = 0; (at = config.find("8080", at)) != config.npos; ++at)
        config.replace(at, 4, "8090");
    const Argv second = haproxy_argv(write_file("second.cfg", config));
    Argv refused{"run", "--transparent", "on", "--"};
    refused.insert(refused.end(), second.begin(), second.end());
    EXPECT_EQ(robust::cli(refused).status.code, 4);
    EXPECT_EQ(network_state(), with_one);
    refused[2] = "auto";
    const robust::Agent other(refused);
    EXPECT_EQ(other.ask("status")["transparent"]["on"], false);
    EXPECT_EQ(http_get(scene.hosts.client, {ClientHost::server_v4, 8090}), ClientHost::client_v4);
    EXPECT_EQ(network_state(), with_one);
}

TEST_F(TransparentRouting, WhatIsInTheWayIsSaid) {
    const auto says = [](const Agent& agent) {
        const auto obstacles = agent.status()["transparent"]["obstacles"];
        return std::ranges::any_of(
            obstacles, [](const auto& each) { return each["what"] == "net.ipv4.conf.back0.src_valid_mark"; });
    };
    set_sysctl("net.ipv4.conf.back0.src_valid_mark", "1");
    {
        StoppedAgent agent({.server = server()});
        EXPECT_TRUE(says(agent)) << agent.status();
        EXPECT_NE(agent.log().find("src_valid_mark"), std::string::npos);
        // It is true: that is why it is said.
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v4, 0, 500ms), std::nullopt);
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v6), ClientHost::client_v6);
        set_sysctl("net.ipv4.conf.back0.src_valid_mark", "0");
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v4), ClientHost::client_v4);
        EXPECT_FALSE(says(agent)) << agent.status();
    }
    EXPECT_EQ(network_state(), before);
}

// As on a kernel that does not take the program.
TEST_F(TransparentRouting, AutoKeepsTheGateOfBpfWhereItCannotDivert) {
    const std::vector<std::pair<std::string, std::string>> off{{"SYNGATE_NO_FEATURE", "divert"}};
    {
        StoppedAgent agent({.server = server(), .extra_env = off});
        const auto status = agent.status();
        EXPECT_EQ(status["gate"]["mode"], "bpf");
        EXPECT_EQ(status["transparent"]["on"], false);
        const auto why = status["transparent"].value("because", "");
        EXPECT_NE(why.find("divert is switched off"), why.npos) << why;
        EXPECT_NE(agent.log().find("asks for transparent connections, but: divert is"), std::string::npos)
            << agent.log();
        EXPECT_EQ(network_state(), before);
        EXPECT_EQ(agent.ask("reload")["exit"], 0);
    }
    const auto refused = robust::cli(run_verb({"--mode", "bpf", "--transparent", "on"}), {.extra_env = off});
    EXPECT_EQ(refused.status, (ExitStatus{3, 0})) << refused.err;
    EXPECT_NE(refused.err.find("divert is switched off"), refused.err.npos) << refused.err;
    const auto intercepting = robust::cli(run_verb({"--mode", "bpf", "--intercept", "80=8888"}),
                                          {.extra_env = {{"SYNGATE_NO_FEATURE", "sk_lookup"}}});
    EXPECT_EQ(intercepting.status, (ExitStatus{3, 0})) << intercepting.err;
    EXPECT_NE(intercepting.err.find("sk_lookup is switched off"), intercepting.err.npos) << intercepting.err;
    EXPECT_EQ(network_state(), before);
    {
        StoppedAgent agent({.server = server(), .options = {"--transparent", "on"}, .extra_env = off});
        EXPECT_EQ(agent.status()["gate"]["mode"], "iptables") << "which can do both";
        EXPECT_EQ(http_get(scene.hosts.client, proxy_v4), ClientHost::client_v4);
    }
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, AReloadThatAsksForItIsTold) {
    const auto config = write_file("plain.cfg", haproxy_config({.ports = {8080}}));
    StoppedAgent agent({.server = haproxy_argv(config)});
    EXPECT_EQ(agent.ask("reload")["exit"], 0);
    EXPECT_FALSE(agent.log().contains("asks for transparent connections now")) << agent.log();
    write_file("plain.cfg", read_file(ProxyScene::transparent_config()));
    EXPECT_EQ(agent.ask("reload")["exit"], 0);
    EXPECT_TRUE(agent.log().contains("asks for transparent connections now")) << agent.log();
    const auto status = agent.status()["transparent"];
    EXPECT_EQ(status["on"], false);
    EXPECT_TRUE(status["because"].get<std::string>().contains("restart syngate")) << status;
    EXPECT_EQ(network_state(), before);
}

TEST_F(TransparentRouting, AutoLeavesAConfigurationWithoutItAlone) {
    StoppedAgent agent({.server = haproxy_argv(write_file("plain.cfg", haproxy_config({.ports = {8080}})))});
    EXPECT_EQ(agent.status()["transparent"]["on"], false);
    EXPECT_EQ(network_state(), before);
    for (const auto& each : agent.status()["gate"]["interfaces"])
        EXPECT_EQ(each["divert"], "") << each;
}

} // namespace syngate::live
