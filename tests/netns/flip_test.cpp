// SPDX-License-Identifier: GPL-2.0-or-later
// What only steering promises: nobody gets to a server that is not ready, other people's programs and sockets
// keep theirs, and without the agent everything goes by the kernel's own rules.
#include "netns/robust_agent.hpp"

#include "net/sock_diag.hpp"
#include "steer/socket_capture.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t other_port = 8081;

std::vector<std::string> both_families() {
    return {fmt::format("{}:{}", ClientHost::server_v4, port),
            fmt::format("[{}]:{}", ClientHost::server_v6, port)};
}

void wait_until_it_serves(const Agent& agent) {
    ASSERT_TRUE(wait_until([&] {
        const auto status = agent.ask("status");
        return status.is_object() && !status["server"]["pid"].is_null() && !status["busy"];
    })) << agent.process.err();
}

std::uint64_t lookups(const Agent& agent, const char* reason) {
    return agent.ask("status")["steering"]["verdicts"][reason];
}

// The local port as the listener sees it of the connection that waits there; 0: none waits.
int accepted_port(const Listener& listener, Duration patience = 5s) {
    if (!listener.has_pending(patience))
        return 0;
    const Fd connection = listener.accept();
    sockaddr_in6 local{};
    socklen_t size = sizeof(local);
    ::getsockname(connection.get(), reinterpret_cast<sockaddr*>(&local), &size);
    return ntohs(local.sin6_port);
}

struct Flip : testing::Test {
    ClientHost hosts;
    Target v4{ClientHost::server_v4, port};
    Target v6{ClientHost::server_v6, port};
};

} // namespace

TEST_F(Flip, AReloadEveryHalfSecondUnderLoadLosesNobody) {
    Agent agent(running({"--policy", "flip"},
                        haproxy({.bind_options = "shards by-thread", .global = "    nbthread 4\n"})));
    wait_until_it_serves(agent);
    LoadRun load(hosts.client, {.to = both_families(), .rate = 3000});
    auto next = Clock::now();
    for (int i = 0; i < 10; ++i) {
        std::this_thread::sleep_until(next += 500ms); // the rhythm; nothing is waited for by it
        const auto outcome = agent.ask("reload");
        EXPECT_EQ(outcome["exit"], 0) << outcome.dump(2);
        EXPECT_EQ(outcome["flipped"], "8080") << outcome.dump(2);
        EXPECT_EQ(outcome["gated"], "");
    }
    const auto result = load.finish();
    EXPECT_EQ(result.failed(), 0U) << result.report.dump(2);
    EXPECT_GT(result.outcome("ok"), 5000U);
    EXPECT_GT(lookups(agent, "steered"), 0U);
    EXPECT_EQ(lookups(agent, "refused"), 0U);
}

// It listens, is killed or ends before it is ready, and in between would have got its share by SO_REUSEPORT.
TEST_F(Flip, AServerThatDiesAfterListeningNeverSawAConnection) {
    const auto dying = write_file("dying.py", R"(
import select, socket, sys, time
sockets = []
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((address, 8080))
    s.listen(100)
    sockets.append(s)
end = time.monotonic() + 0.7
seen = 0
while (left := end - time.monotonic()) > 0:
    for s in select.select(sockets, [], [], left)[0]:
        s.accept()[0].close()
        seen += 1
open(sys.argv[1], "w").write(f"{seen}\n")
sys.exit(3)
)");
    const std::string seen = scratch() + "/seen", die = scratch() + "/die";
    const auto program = write_file(
        "haproxy", fmt::format("#!/bin/sh\n[ -e {} ] && [ \"$1\" != -c ] && exec python3 {} {}\nexec "
                               "/usr/sbin/haproxy \"$@\"\n",
                               die, dying, seen));
    ASSERT_EQ(::chmod(program.c_str(), 0755), 0);
    Argv server = haproxy();
    server[0] = program;
    Agent agent(running({"--policy", "flip"}, server));
    wait_until_it_serves(agent);
    LoadRun load(hosts.client, {.to = both_families(), .rate = 1000});
    write_file("die", "");
    const auto outcome = agent.ask("reload");
    EXPECT_EQ(outcome["exit"], 1) << outcome.dump(2);
    EXPECT_NE(outcome["message"].get<std::string>().find("exited with status 3"), std::string::npos)
        << outcome.dump(2);
    EXPECT_EQ(read_file(seen), "0\n");
    const auto result = load.finish();
    EXPECT_EQ(result.failed(), 0U) << result.report.dump(2);
    EXPECT_GT(result.outcome("ok"), 200U);
    EXPECT_EQ(agent.ask("status")["steering"]["generation"], 0);
}

TEST_F(Flip, AnotherProgramOfTheNamespaceKeepsItsChoice) {
    const Listener theirs(9999);
    const auto sockets = *open_sock_diag();
    const auto all = *sockets->listeners();
    const auto found = std::ranges::find(all, 9999, &syngate::Listener::port);
    ASSERT_NE(found, all.end());
    const auto maps = *SteerMaps::load(7);
    ASSERT_TRUE(capture_listeners(*maps, {{*found, 0}}));
    ListenAddress at{.ipv6 = false, .address = {}, .port = port};
    ::inet_pton(AF_INET, ClientHost::server_v4, at.address.data());
    ASSERT_TRUE(maps->set_rule(1, at, {.first_slot = 0, .sockets = 1, .steered = 0, .no_listener = 0}));
    maps->activate(1);
    const auto link = maps->attach();
    ASSERT_TRUE(link) << link.error().message;

    Agent agent(running({"--policy", "flip"}, haproxy({.ports = {port, other_port}})));
    wait_until_it_serves(agent);
    ASSERT_EQ(agent.ask("flip", {"8080=8081"})["exit"], 0);
    const Fd there = connect_from(hosts.client, v4);
    EXPECT_EQ(accepted_port(theirs), port);
    const Fd here = connect_from(hosts.client, v6);
    EXPECT_EQ(accepted_port(theirs, 0ms), 0);
    EXPECT_GE(lookups(agent, "selected_before"), 1U);
    EXPECT_GE(lookups(agent, "steered"), 1U);
    EXPECT_EQ(agent.ask("reload")["exit"], 0);
    const Fd again = connect_from(hosts.client, v4);
    EXPECT_EQ(accepted_port(theirs), port);
    EXPECT_GT(maps->verdicts().no_rule, 0U); // it is asked beside ours
}

// Bound to one address of the port whose every other address is the server's.
TEST_F(Flip, AnotherServerOnAnAddressOfItsOwnKeepsItsConnections) {
    must_run({"ip", "address", "add", "10.77.0.9/32", "dev", ClientHost::server_device});
    const auto config = haproxy_config();
    const auto four = config.find("    bind 0.0.0.0"), end = config.find('\n', config.find("    bind [::]"));
    const auto path =
        write_file("stranger.cfg", config.substr(0, four) + "    bind 10.77.0.9:8080" + config.substr(end));
    const auto stranger = start_server(haproxy_argv(path), {port});
    Agent agent(running({"--policy", "flip"}, haproxy()));
    wait_until_it_serves(agent);
    LoadRun load(hosts.client, {.to = {fmt::format("10.77.0.9:{}", port)}, .rate = 50});
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(agent.ask("reload")["flipped"], "8080");
    EXPECT_EQ(load.finish().failed(), 0U);
    EXPECT_GT(lookups(agent, "exempt"), 0U);
}

TEST_F(Flip, ASocketThatIsBoundToADeviceIsLeftToHold) {
    const auto config = haproxy({.bind_options = fmt::format("interface {}", ClientHost::server_device)});
    {
        Agent agent(running({}, config));
        wait_until_it_serves(agent);
        const auto outcome = agent.ask("reload");
        EXPECT_EQ(outcome["exit"], 0) << outcome.dump(2);
        EXPECT_EQ(outcome["gated"], "8080");
        EXPECT_NE(outcome["message"].get<std::string>().find("bound to a device"), std::string::npos);
    }
    Agent agent(running({"--policy", "flip"}, config));
    wait_until_it_serves(agent);
    const auto pid = agent.ask("status")["server"]["pid"];
    const auto outcome = agent.ask("reload");
    EXPECT_EQ(outcome["exit"], 3) << outcome.dump(2);
    EXPECT_EQ(agent.ask("status")["server"]["pid"], pid);
    EXPECT_EQ(knock(hosts.client, v4), Reply::connected);
}

TEST_F(Flip, AnAgentThatIsKilledInAReloadLeavesTheKernelsOwnRules) {
    const auto before = traces();
    for (const auto after : {0ms, 60ms, 120ms, 180ms, 240ms}) {
        Agent agent(running({"--policy", "flip"}, haproxy()));
        wait_until_it_serves(agent);
        LoadRun load(hosts.client, {.to = both_families(), .rate = 500});
        Process asking(syngate({"reload", "--control", agent.control()}));
        std::this_thread::sleep_for(after); // how far the reload is: any instant must do
        agent.kill();
        EXPECT_EQ(knock(hosts.client, v4), Reply::connected);
        EXPECT_EQ(knock(hosts.client, v6), Reply::connected);
        const auto result = load.finish();
        // Killed just when the old server closes its sockets, the agent leaves what HAProxy has by itself:
        // connections that the kernel gives to them until then are reset.
        EXPECT_LE(result.failed(), 3U) << to_us(after) << result.report.dump(2);
        EXPECT_EQ(result.failed(), result.outcome("reset")) << to_us(after) << result.report.dump(2);
    }
    EXPECT_EQ(cli({"cleanup"}).status, (ExitStatus{0, 0}));
    EXPECT_TRUE(wait_until([&] { return traces() == before; })) << testing::PrintToString(traces());
}

TEST_F(Flip, WithoutAnAgentASmallOneStaysUntilNothingIsFlipped) {
    const auto before = traces();
    const Listener first(port), second(other_port);
    const auto nobody = cli({"flip", "8080=9"});
    EXPECT_EQ(nobody.status, (ExitStatus{1, 0}));
    EXPECT_NE(nobody.err.find("nobody listens on port 9"), std::string::npos) << nobody.err;
    EXPECT_EQ(cli({"flip", "--clear"}).status, (ExitStatus{1, 0}));

    ASSERT_EQ(cli({"flip", "8080=8081"}).out, "flipped 8080=8081\n");
    for (const Target& to : {v4, v6}) {
        const Fd connection = connect_from(hosts.client, to);
        EXPECT_EQ(accepted_port(second), port); // nothing is rewritten
    }
    EXPECT_EQ(accepted_port(first, 0ms), 0);
    const auto taken = cli({"close", "--ports", "8080"});
    EXPECT_EQ(taken.status, (ExitStatus{4, 0})) << taken.err;
    EXPECT_EQ(cli({"flip", "8082=8081"}).out, "flipped 8080=8081 8082=8081\n");
    EXPECT_EQ(cli({"flip", "--clear", "8080"}).out, "flipped 8082=8081\n");
    const Fd back = connect_from(hosts.client, v4);
    EXPECT_EQ(accepted_port(first), port);
    EXPECT_EQ(cli({"flip", "--clear"}).out, "nothing is flipped\n");
    EXPECT_TRUE(wait_until([&] { return traces() == before; })) << testing::PrintToString(traces());
}

TEST_F(Flip, TheKernelsOwnRulesHoldAtOnceWhenTheAgentDies) {
    const Listener first(port), second(other_port);
    ASSERT_EQ(cli({"flip", "8080=8081"}).status, (ExitStatus{0, 0}));
    const auto status = nlohmann::json::parse(cli({"status", "--json"}).out);
    ASSERT_EQ(status["steering"]["flips"]["8080"], other_port) << status.dump(2);
    const Fd flipped = connect_from(hosts.client, v4);
    EXPECT_EQ(accepted_port(second), port);
    const pid_t agent = status["agent"]["pid"];
    ASSERT_EQ(::kill(agent, SIGKILL), 0);
    ASSERT_TRUE(wait_until([&] { return !processes().contains(agent); }));
    const Fd own = connect_from(hosts.client, v4);
    EXPECT_EQ(accepted_port(first), port);
    EXPECT_EQ(cli({"cleanup"}).status, (ExitStatus{0, 0}));
    EXPECT_EQ(pins(), std::set<std::string>{});
}

// A server that knows nothing of sharing a port, restarted in effect, with the old one there until the new
// one is.
TEST_F(Flip, BlueGreenForAServerThatCannotOverlap) {
    Argv server = python_argv(port);
    server.back() = "{SYNGATE_PORT}";
    Agent agent(running({"--policy", "flip", "--ports", "8080", "--flip-ports", "9001,9002"}, server));
    wait_until_it_serves(agent);
    EXPECT_FALSE(listens(port));
    LoadRun load(hosts.client, {.to = both_families(), .rate = 100});
    std::set<int> backing;
    for (const std::string verb : {"reload", "restart", "reload"}) {
        const auto outcome = agent.ask(verb);
        EXPECT_EQ(outcome["exit"], 0) << outcome.dump(2);
        EXPECT_EQ(outcome["flipped"], "8080") << outcome.dump(2);
        EXPECT_EQ(outcome["gated"], "");
        backing.insert(agent.ask("status")["steering"]["flips"]["8080"].get<int>());
    }
    EXPECT_EQ(backing, (std::set<int>{9001, 9002}));
    const auto result = load.finish();
    EXPECT_EQ(result.failed(), 0U) << result.report.dump(2);
    EXPECT_GT(result.outcome("ok"), 50U);

    const auto unknown_ports = cli(running({"--policy", "flip"}, server));
    EXPECT_EQ(unknown_ports.status, (ExitStatus{2, 0}));
    EXPECT_NE(unknown_ports.err.find("--ports"), std::string::npos) << unknown_ports.err;
}

TEST_F(Flip, WhatIsSteeredCanBeReadFromThePins) {
    const Listener second(other_port);
    ASSERT_EQ(cli({"flip", "8080=8081"}).status, (ExitStatus{0, 0}));
    const auto status = nlohmann::json::parse(cli({"status", "--json"}).out);
    const std::string directory = status["gate"]["pins"];
    const auto rules = must_run({"bpftool", "map", "dump", "pinned", directory + "/steer_rules"});
    EXPECT_NE(rules.find("\"port\": 8080"), std::string::npos) << rules;
    EXPECT_NE(rules.find("\"first_slot\""), std::string::npos) << rules;
    EXPECT_NE(must_run({"bpftool", "map", "dump", "pinned", directory + "/steer"}).find("\"active\": 1"),
              std::string::npos);
    EXPECT_EQ(cli({"flip", "--clear"}).status, (ExitStatus{0, 0}));
}

} // namespace syngate::live::robust
