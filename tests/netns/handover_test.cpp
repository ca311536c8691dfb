// SPDX-License-Identifier: GPL-2.0-or-later
// One agent takes over from another: it waits for the ports, and the one that stops gives them up behind its
// gate.
#include "netns/iptables.hpp"
#include "netns/proxy_scene.hpp"

#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;
using robust::Target;

const Target transparent_v4{ClientHost::server_v4, ProxyScene::proxy_port};

// `syngate run` that is not expected to serve yet; ended by SIGTERM, if it has not ended by itself.
struct Successor {
    std::string control = scratch() + "/successor.sock";
    Process process;

    Successor(Argv options, const Argv& server, const SpawnOptions& spawn = {})
        : process(robust::syngate(robust::running(with_own(std::move(options), control), server)), spawn) {}
    ~Successor() { stop(); }
    Successor(const Successor&) = delete;
    Successor& operator=(const Successor&) = delete;

    [[nodiscard]] nlohmann::json status() const {
        const auto result = robust::cli({"status", "--control", control, "--json"});
        auto answer = nlohmann::json::parse(result.out, nullptr, false);
        return answer.is_object() ? answer : nlohmann::json::object();
    }
    [[nodiscard]] bool serves() const {
        const auto now = status();
        return now.value("ok", false) && !now["server"]["pid"].is_null() && !now["busy"];
    }
    void stop() {
        process.signal(SIGTERM);
        process.wait(20s);
    }

private:
    static Argv with_own(Argv options, const std::string& control) {
        options.insert(options.end(), {"--control", control, "--ports", "8080", "--wait-for-ports", "60s"});
        return options;
    }
};

bool is_awaited(const robust::Agent& agent) {
    return !agent.ask("status").at("agent").at("awaited_by").empty();
}

// By mode: "tcx", and "nft" or "legacy" of iptables.
class Handover : public testing::TestWithParam<const char*> {
protected:
    static AgentPlan plan(Argv options = {}) { return by_way(GetParam(), {.options = std::move(options)}); }
};

class HandoverOfRouting : public Handover {
protected:
    static Argv server() { return haproxy_argv(ProxyScene::transparent_config()); }
    static robust::Agent old_agent() {
        const auto p = plan({"--ports", "8080"});
        return robust::Agent(robust::running(p.options, server()), {.extra_env = p.extra_env});
    }
    static std::string rules() { return must_run({"ip", "-4", "rule"}) + must_run({"ip", "-6", "rule"}); }
    static bool is_there(const std::string& table) {
        return rules().find("lookup " + table) != std::string::npos;
    }
    // An answer to a request on a connection that has been open for a while.
    static bool is_answered(const Fd& connection) {
        constexpr std::string_view request = "GET / HTTP/1.0\r\n\r\n";
        pollfd ready{connection.get(), POLLIN, 0};
        char byte = 0;
        return ::send(connection.get(), request.data(), request.size(), MSG_NOSIGNAL) > 0 &&
               ::poll(&ready, 1, 3000) == 1 && ::read(connection.get(), &byte, 1) == 1;
    }
    const ProxyScene scene;
};

} // namespace

TEST_P(Handover, UnderLoadLosesNothing) {
    const ClientHost hosts;
    const auto p = plan();
    const SpawnOptions spawn{.extra_env = p.extra_env};
    auto options = p.options;
    options.insert(options.end(), {"--ports", "8080"});
    robust::Agent old(robust::running(options, haproxy()), spawn);
    LoadRun load(hosts.client, {.to = {"10.77.0.1:8080", "[fd00:77::1]:8080"}, .rate = 500});
    Successor next(p.options, haproxy(), spawn);
    ASSERT_TRUE(wait_until([&] { return is_awaited(old); })) << next.process.err();
    EXPECT_EQ(next.status().value("exit", 0), 4) << "it serves nobody yet, and says so";
    old.process.signal(SIGTERM);
    EXPECT_EQ(old.process.wait(20s), (ExitStatus{0, 0})) << old.process.err();
    EXPECT_TRUE(wait_until([&] { return next.serves(); })) << next.process.err();
    const auto result = load.finish();
    EXPECT_EQ(result.failed(), 0U) << result.report.dump(2) << old.process.err() << next.process.err();
    EXPECT_GT(result.outcome("ok"), 50U);
    EXPECT_NE(old.process.err().find("a successor serves"), std::string::npos) << old.process.err();
}

// The one that serves stops when somebody waits: whoever could not serve must not seem to.
TEST_P(Handover, WhoCannotServeDoesNotWait) {
    const auto p = plan();
    auto options = p.options;
    options.insert(options.end(), {"--ports", "8080"});
    const robust::Agent old(robust::running(options, haproxy()), {.extra_env = p.extra_env});
    write_file("no-socket", "");
    struct {
        const char* why;
        int exit;
        Argv options, server;
        std::vector<std::pair<std::string, std::string>> extra_env;
    } const cases[] = {
        {"its configuration is wrong", 1, {}, haproxy_argv(write_file("wrong.cfg", "no such word\n")), {}},
        {"it cannot gate", 3, {"--mode", "bpf"}, haproxy(), {{"SYNGATE_NO_FEATURE", "bpf"}}},
        {"no control socket can be made", 1, {"--control", scratch() + "/no-socket"}, haproxy(), {}},
        {"another agent has its control socket", 4, {"--control", old.control()}, haproxy(), {}},
    };
    for (const auto& each : cases) {
        Argv argv = robust::running({"--ports", "8080", "--wait-for-ports", "60s"}, each.server);
        argv.insert(argv.begin() + 1, each.options.begin(), each.options.end());
        Process next(robust::syngate(argv), {.extra_env = each.extra_env});
        bool awaited = false;
        EXPECT_TRUE(wait_until(
            [&] {
                awaited |= is_awaited(old);
                return !next.runs();
            },
            20s))
            << each.why;
        EXPECT_EQ(next.wait(0s), (ExitStatus{each.exit, 0})) << each.why << next.err();
        EXPECT_FALSE(awaited) << each.why;
    }
}

// Marks, tables and priorities that differ: nothing of the one's is of use to the other.
TEST_P(HandoverOfRouting, WithOtherOptionsEachKeepsItsOwnAsLongAsItNeedsIt) {
    make_legacy_tables();
    const std::string before = network_state();
    {
        auto old = old_agent();
        Fd open = robust::connect_from(scene.hosts.client, transparent_v4);
        const auto p = plan({"--mark", "0x40", "--table", "7000", "--rule-priority", "700"});
        Successor next(p.options, server(), {.extra_env = p.extra_env});
        ASSERT_TRUE(wait_until([&] { return is_awaited(old); })) << next.process.err();
        old.process.signal(SIGTERM);
        ASSERT_TRUE(wait_until([&] { return next.serves(); })) << next.process.err();
        EXPECT_TRUE(is_there("8300") && is_there("7000")) << rules();
        EXPECT_EQ(http_get(scene.hosts.client, transparent_v4), ClientHost::client_v4) << next.process.err();
        EXPECT_TRUE(is_answered(open)) << old.process.err();
        open.reset();
        EXPECT_EQ(old.process.wait(20s), (ExitStatus{0, 0})) << old.process.err();
        EXPECT_TRUE(wait_until([&] { return !is_there("8300"); })) << rules();
        EXPECT_TRUE(is_there("7000")) << rules();
        EXPECT_EQ(http_get(scene.hosts.client, transparent_v4), ClientHost::client_v4) << next.process.err();
    }
    EXPECT_EQ(network_state(), before);
}

TEST_P(HandoverOfRouting, WhatBothUseGoesWithTheLastOfThem) {
    make_legacy_tables();
    const std::string before = network_state();
    {
        auto old = old_agent();
        Fd open = robust::connect_from(scene.hosts.client, transparent_v4);
        const auto p = plan();
        Successor next(p.options, server(), {.extra_env = p.extra_env});
        ASSERT_TRUE(wait_until([&] { return is_awaited(old); })) << next.process.err();
        old.process.signal(SIGTERM);
        ASSERT_TRUE(wait_until([&] { return next.serves(); })) << next.process.err();
        EXPECT_EQ(next.status()["transparent"]["on"], true) << next.process.err();
        next.stop();
        EXPECT_TRUE(old.process.runs());
        EXPECT_TRUE(is_there("8300")) << rules();
        EXPECT_TRUE(is_answered(open)) << old.process.err();
        open.reset();
        EXPECT_EQ(old.process.wait(20s), (ExitStatus{0, 0})) << old.process.err();
    }
    EXPECT_EQ(network_state(), before);
}

const auto name_of_way = [](const auto& of) { return std::string(of.param); };
INSTANTIATE_TEST_SUITE_P(By, Handover, testing::Values("tcx", "nft", "legacy"), name_of_way);
INSTANTIATE_TEST_SUITE_P(By, HandoverOfRouting, testing::Values("tcx", "nft", "legacy"), name_of_way);

} // namespace syngate::live
