// SPDX-License-Identifier: GPL-2.0-or-later
// Invariant 1: no port stays closed past its lease, whoever was killed, at whatever instant.
#include "netns/robust_agent.hpp"

#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <tuple>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 80;
constexpr std::uint16_t other_port = 81;
constexpr Duration slack = 400ms; // two busy cores, and a knock lasts 20 ms

class FailOpen : public testing::TestWithParam<std::tuple<const char*, const char*>> {
protected:
    [[nodiscard]] std::string hook() const { return std::get<0>(GetParam()); }
    [[nodiscard]] Argv how(const Argv& more) const {
        Argv all{"--ports", std::to_string(port), "--hook", hook(), "--policy", std::get<1>(GetParam())};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
    // After the agent's end nothing but a lease of tc, whose filter outlives it, may keep the port closed.
    [[nodiscard]] Time latest(Time killed_at, Time lease_ends_by) const {
        return (hook() == "tc" ? lease_ends_by : killed_at) + slack;
    }

    ClientHost hosts;
    Target v4{ClientHost::server_v4, port};
    Target v6{ClientHost::server_v6, port};
};

std::string case_name(const testing::TestParamInfo<std::tuple<const char*, const char*>>& info) {
    return fmt::format("{}_{}", std::get<0>(info.param), std::get<1>(info.param));
}

Argv haproxy_behind(const Argv& options) {
    Argv all{"run"};
    all.insert(all.end(), options.begin(), options.end());
    all.emplace_back("--");
    const auto server = live::haproxy({.ports = {port}});
    all.insert(all.end(), server.begin(), server.end());
    return all;
}

// A server that never accepts, so that a drain waits for what is queued; several may share the port.
constexpr auto deaf = "import socket, sys, time\n"
                      "s = socket.socket(socket.AF_INET6)\n"
                      "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
                      "s.bind(('::', 80))\n"
                      "s.listen(100)\n"
                      "time.sleep(60)\n";

} // namespace

TEST_P(FailOpen, AfterSigkillOfTheAgentThatWasToldToClose) {
    Agent agent(haproxy_behind(how({})));
    ASSERT_EQ(knock(hosts.client, v4), Reply::connected);
    ASSERT_EQ(agent.ask("close", {"--ports", "80", "--lease", "1500ms"})["exit"], 0);
    const auto lease_ends_by = Clock::now() + 1500ms;
    ASSERT_EQ(knock(hosts.client, v4), Reply::silent);
    ASSERT_EQ(knock(hosts.client, v6), Reply::silent);
    agent.kill();
    const auto killed_at = Clock::now();
    for (const auto& target : {v4, v6}) {
        const auto when = answered(hosts.client, target, 10s);
        ASSERT_TRUE(when) << target.address;
        EXPECT_LE(to_us(*when - killed_at), to_us(latest(killed_at, lease_ends_by) - killed_at))
            << target.address;
    }
}

TEST_P(FailOpen, AfterSigkillOfTheAgentThatCoversACommand) {
    const Listener server(port);
    Closed agent(how({"--lease", "1500ms"}));
    ASSERT_EQ(knock(hosts.client, v4), Reply::silent);
    ASSERT_EQ(knock(hosts.client, v6), Reply::silent);
    agent.kill();
    const auto killed_at = Clock::now();
    for (const auto& target : {v4, v6}) {
        const auto when = answered(hosts.client, target, 10s);
        ASSERT_TRUE(when) << target.address;
        EXPECT_LE(to_us(*when - killed_at), to_us(latest(killed_at, killed_at + 1500ms) - killed_at))
            << target.address;
    }
}

TEST_P(FailOpen, AtLeaseEndOfAStoppedAgentWhichLeavesItOpen) {
    const Listener server(port);
    Closed agent(how({"--lease", "900ms"}));
    ASSERT_EQ(knock(hosts.client, v4), Reply::silent); // parked, if SYNs are held
    agent.process.signal(SIGSTOP);
    const auto stopped_at = Clock::now();
    ASSERT_EQ(knock(hosts.client, v4, 50ms), Reply::silent);
    const auto when = answered(hosts.client, v4, 10s);
    ASSERT_TRUE(when);
    EXPECT_LE(*when - stopped_at, 900ms + slack);
    agent.process.signal(SIGCONT);
    // It answers, so it has seen its late renewal; and it must not close again.
    for (int i = 0; i < 50; ++i) {
        EXPECT_EQ(knock(hosts.client, v4), Reply::connected);
        EXPECT_EQ(knock(hosts.client, v6), Reply::connected);
        if (i % 10 == 0) {
            EXPECT_FALSE(agent.ask("status")["gate"]["closed"]);
        }
    }
    agent.process.signal(SIGTERM);
    agent.process.wait();
    EXPECT_NE(agent.process.err().find(" 0 replayed"), std::string::npos) << agent.process.err();
    if (std::get<1>(GetParam()) == std::string("hold")) {
        EXPECT_EQ(agent.process.err().find(" 0 parked"), std::string::npos) << agent.process.err();
        EXPECT_NE(agent.process.err().find(" expired"), std::string::npos) << agent.process.err();
        EXPECT_EQ(agent.process.err().find(" 0 expired"), std::string::npos) << agent.process.err();
    }
}

TEST_P(FailOpen, AfterTheLongestWindowHoweverOftenItIsRenewed) {
    const Listener server(port);
    const auto begun = Clock::now();
    Closed agent(how({"--lease", "300ms", "--max-window", "1200ms"}));
    const auto closed_by = Clock::now();
    const auto when = answered(hosts.client, v4, 10s);
    ASSERT_TRUE(when);
    EXPECT_GE(*when - begun, 1200ms); // it was renewed
    EXPECT_LE(*when - closed_by, 1200ms + slack);
    for (int i = 0; i < 20; ++i)
        EXPECT_EQ(knock(hosts.client, v6), Reply::connected);
    agent.process.signal(SIGTERM);
    EXPECT_EQ(agent.process.wait(), (ExitStatus{128 + SIGTERM, 0})) << agent.process.err();
    EXPECT_NE(agent.process.err().find("--max-window"), std::string::npos) << agent.process.err();
}

// The port has no server in the middle of a restart: refused is as open as it can be.
TEST_P(FailOpen, WhenStoppedInTheMiddleOfARestart) {
    const auto before = traffic_control();
    const auto config = write_file("haproxy.cfg", haproxy_config({.ports = {port}}));
    const auto slow =
        write_file("slow", fmt::format("if [ -e {0}/again ]; then sleep 60; fi; exec haproxy -db -f {1}",
                                       scratch(), config));
    Argv run{"run"};
    const auto options = how({"--", "sh", slow});
    run.insert(run.end(), options.begin(), options.end());
    Agent agent(run);
    write_file("again", "");
    Process asking(syngate({"restart", "--control", agent.control()}));
    ASSERT_TRUE(wait_until([&] { return knock(hosts.client, v4, 30ms) == Reply::silent; }));
    agent.process.signal(SIGTERM);
    const auto when = answered(hosts.client, v4, 10s);
    ASSERT_TRUE(when);
    EXPECT_TRUE(agent.process.wait()) << "still there: " << agent.process.err();
    EXPECT_EQ(knock(hosts.client, v4), Reply::refused);
    const auto told = asking.wait();
    EXPECT_TRUE(told && told->code == 1) << asking.out() << asking.err();
    EXPECT_EQ(traffic_control(), before);
    EXPECT_EQ(pins(), std::set<std::string>{});
    std::remove((scratch() + "/again").c_str());
}

TEST_P(FailOpen, WhenStoppedInTheMiddleOfAReload) {
    const auto before = traffic_control();
    Argv run{"run"};
    const auto options =
        how({"--reload", "overlap", "--handshake-timeout", "30s", "--", "/usr/bin/python3", "-c", deaf});
    run.insert(run.end(), options.begin(), options.end());
    Agent agent(run);
    const Fd queued = connect_from(hosts.client, v4); // the drain waits for it
    Process asking(syngate({"reload", "--control", agent.control()}));
    ASSERT_TRUE(wait_until([&] { return knock(hosts.client, v4, 30ms) == Reply::silent; }));
    agent.process.signal(SIGTERM);
    ASSERT_TRUE(answered(hosts.client, v4, 10s));
    EXPECT_TRUE(agent.process.wait()) << "still there: " << agent.process.err();
    EXPECT_EQ(knock(hosts.client, v4), Reply::refused); // and no server is left behind
    const auto told = asking.wait();
    EXPECT_TRUE(told && told->code == 1) << asking.out() << asking.err();
    EXPECT_EQ(traffic_control(), before);
    EXPECT_EQ(pins(), std::set<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(Hooks, FailOpen,
                         testing::Combine(testing::Values("tcx", "tc", "xdp"),
                                          testing::Values("hold", "drop")),
                         case_name);

namespace {

class Remains : public testing::TestWithParam<bool> {
protected:
    ClientHost hosts;
    const Listener server{port};
    const Listener other_server{other_port};
    static std::size_t filters() {
        const auto text = traffic_control();
        std::size_t count = 0;
        for (auto at = text.find("handle 0x"); at != text.npos; at = text.find("handle 0x", at + 1))
            ++count;
        return count;
    }
    static std::size_t agents_pinned() {
        std::size_t count = 0;
        for (const auto& path : pins())
            count += path.ends_with("/gate") ? 1 : 0;
        return count;
    }
};

} // namespace

// A dead agent's filters, qdiscs and pins go with the next start, or by `syngate cleanup`; a living one's
// stay.
TEST_P(Remains, OfADeadAgentGoAndThoseOfALivingOneStay) {
    const bool by_start = GetParam();
    const auto before = traffic_control();
    Closed living({"--ports", "81", "--hook", "tc"});
    const auto with_one = traffic_control();
    const auto with_one_pinned = pins();
    {
        Closed dying({"--ports", "80", "--hook", "tc"});
        ASSERT_EQ(filters(), 4U) << traffic_control(); // two each on lo and the veth
        ASSERT_EQ(agents_pinned(), 2U);
        dying.kill();
    }
    ASSERT_EQ(filters(), 4U);
    ASSERT_EQ(agents_pinned(), 2U);
    if (by_start) {
        Closed next({"--ports", "80", "--hook", "tc"});
        EXPECT_EQ(filters(), 4U) << traffic_control();
        EXPECT_EQ(agents_pinned(), 2U);
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::silent);
        next.end();
    } else {
        const auto result = cli({"cleanup"});
        EXPECT_TRUE(result.ok()) << result.err;
        EXPECT_NE(result.out.find("removed the tc filter of a dead agent on srv0"), std::string::npos)
            << result.out;
        EXPECT_NE(result.out.find("removed the pins "), std::string::npos) << result.out;
        EXPECT_NE(cli({"cleanup"}).out.find("nothing was left"), std::string::npos);
    }
    EXPECT_EQ(traffic_control(), with_one);
    EXPECT_EQ(pins(), with_one_pinned);
    EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::connected);
    EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, other_port}), Reply::silent);
    living.end();
    EXPECT_EQ(traffic_control(), before);
    EXPECT_EQ(pins(), std::set<std::string>{});
}

INSTANTIATE_TEST_SUITE_P(By, Remains, testing::Bool(),
                         [](const auto& of) { return std::string(of.param ? "NextStart" : "Cleanup"); });

// The qdisc belongs to the one that made it only as long as that one lives.
TEST(Qdisc, GoesWithTheLastAgentWhoeverMadeIt) {
    const ClientHost hosts;
    const Listener server(port);
    const Listener other_server(other_port);
    const auto before = traffic_control();
    {
        Closed maker({"--ports", "80", "--hook", "tc"});
        Closed guest({"--ports", "81", "--hook", "tc"});
        maker.end();
        EXPECT_NE(traffic_control(), before);
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, other_port}), Reply::silent);
        guest.end();
    }
    EXPECT_EQ(traffic_control(), before);
    {
        Closed maker({"--ports", "80", "--hook", "tc"});
        Closed guest({"--ports", "81", "--hook", "tc"});
        maker.kill();
        EXPECT_TRUE(cli({"cleanup"}).ok());
        guest.kill();
        EXPECT_TRUE(cli({"cleanup"}).ok());
    }
    EXPECT_EQ(traffic_control(), before);
}

// A container seldom has CAP_SYS_ADMIN, without which nobody may open another process's programs and maps.
TEST(Confined, RemainsGoWithoutCapSysAdmin) {
    const ClientHost hosts;
    const Listener server(port);
    const Listener other_server(other_port);
    const auto before = traffic_control();
    Closed living({"--ports", "81", "--hook", "tc"});
    const auto with_one = traffic_control();
    {
        Closed dying({"--ports", "80", "--hook", "tc"});
        dying.kill();
    }
    ASSERT_NE(traffic_control(), with_one);
    const Argv confined{"setpriv",    "--inh-caps",     "-sys_admin", "--bounding-set",
                        "-sys_admin", built("syngate"), "cleanup"};
    must_run(confined);
    EXPECT_EQ(traffic_control(), with_one);
    living.kill();
    must_run(confined);
    EXPECT_EQ(traffic_control(), before);
}

} // namespace syngate::live::robust
