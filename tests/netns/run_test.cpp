// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate run` as a service manager, a container and an ill-disposed neighbour meet it.
#include "netns/robust_agent.hpp"

#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr auto nobody = "65534";

// A check that takes as long as the file "slow" is there.
std::string slow_check() {
    const auto path =
        write_file("slow-check", "#!/bin/sh\nwhile [ -e " + scratch() + "/slow ]; do sleep 0.02; done\n");
    ::chmod(path.c_str(), 0755);
    return path;
}

int reloads(const Agent& agent) {
    return agent.ask("status")["reloads"]["done"];
}

} // namespace

TEST(Run, EndsWithItsServersStatus) {
    for (const auto& [number, code] :
         {std::pair(SIGSEGV, 139), std::pair(SIGKILL, 137), std::pair(SIGUSR1, 0)}) {
        Agent agent(running({}, haproxy()));
        const pid_t server = agent.ask("status")["server"]["pid"];
        ASSERT_EQ(::kill(server, number), 0);
        EXPECT_EQ(agent.process.wait(), (ExitStatus{code, 0})) << number << agent.process.err();
    }
}

TEST(Run, StopsGracefullyAndLeavesNothing) {
    const auto before = traffic_control();
    for (const int number : {SIGTERM, SIGINT}) {
        Agent agent(running({"--hook", "tc"}, haproxy()));
        agent.process.signal(number);
        EXPECT_EQ(agent.process.wait(), (ExitStatus{0, 0})) << agent.process.err();
        EXPECT_FALSE(listens(port));
        EXPECT_NE(::access(agent.control().c_str(), F_OK), 0);
        EXPECT_EQ(traffic_control(), before);
        EXPECT_EQ(pins(), std::set<std::string>{});
    }
}

TEST(Run, StopsAtOnceWhileAConfigurationIsChecked) {
    Agent agent(running({"--check", slow_check()}, haproxy()));
    write_file("slow", "");
    agent.process.signal(SIGHUP);
    ASSERT_TRUE(wait_until([&] { return agent.ask("status")["busy"] == true; }));
    agent.process.signal(SIGTERM);
    EXPECT_EQ(agent.process.wait(), (ExitStatus{0, 0})) << agent.process.err();
}

TEST(Run, TakesItsOptionsFromTheEnvironment) {
    {
        const Agent agent(running({}, haproxy()),
                          {.extra_env = {{"SYNGATE_PORTS", "8080,8443"}, {"SYNGATE_POLICY", "drop"}}});
        const auto status = agent.ask("status");
        EXPECT_EQ(status["server"]["ports"], "8080,8443");
        EXPECT_EQ(status["gate"]["policy"], "drop");
    }
    {
        const Agent agent(running({}, haproxy()), {.extra_env = {{"HAPROXY_PORTS", "8080,8444"}}});
        EXPECT_EQ(agent.ask("status")["server"]["ports"], "8080,8444");
    }
    const Agent agent(running({"--ports", "8080"}, haproxy()),
                      {.extra_env = {{"SYNGATE_PORTS", "8445"}, {"HAPROXY_PORTS", "8446"}}});
    EXPECT_EQ(agent.ask("status")["server"]["ports"], "8080"); // the command line is nearer
}

TEST(Run, ReloadsBySignalAndByAChangedFile) {
    const auto config = haproxy();
    const auto watched = write_file("watched/one", "");
    const Agent agent(running({"--watch", scratch() + "/watched"}, config));
    for (const int number : {SIGHUP, SIGUSR2}) {
        const int before = reloads(agent);
        agent.process.signal(number);
        EXPECT_TRUE(wait_until([&] { return reloads(agent) == before + 1; })) << number;
    }
    write_file("watched/one", "changed");
    EXPECT_TRUE(wait_until([&] { return reloads(agent) == 3; })) << agent.process.err();
    EXPECT_EQ(agent.ask("status")["reloads"]["failed"], 0) << agent.process.err();
}

TEST(Run, JoinsRequestsThatComeDuringAReload) {
    Agent agent(running({"--check", slow_check()}, haproxy()));
    write_file("slow", "");
    std::vector<Process> asking;
    asking.reserve(4);
    asking.emplace_back(syngate({"reload", "--json", "--control", agent.control()}));
    ASSERT_TRUE(wait_until([&] { return agent.ask("status")["busy"] == true; }));
    for (int i = 0; i < 3; ++i)
        asking.emplace_back(syngate({"reload", "--json", "--control", agent.control()}));
    agent.process.signal(SIGHUP);
    const auto connected = [&] { // as the kernel lists the agent's ends
        return run({"grep", "-c", " 03 .* " + agent.control(), "/proc/net/unix"}).out == "4\n";
    };
    EXPECT_TRUE(wait_until(connected)) << run({"cat", "/proc/net/unix"}).out;
    EXPECT_EQ(agent.ask("close")["exit"], 4); // busy
    std::remove((scratch() + "/slow").c_str());
    for (auto& each : asking) {
        EXPECT_EQ(each.wait(), (ExitStatus{0, 0})) << each.err();
        EXPECT_EQ(nlohmann::json::parse(each.out())["ok"], true);
    }
    EXPECT_EQ(reloads(agent), 2);
}

TEST(Run, AsPid1ReapsWhatLostItsParent) {
    const auto control = scratch() + "/pid1.sock";
    const auto config = haproxy();
    // The covered server is a shell whose grandchildren lose their parents at once.
    Argv argv{"unshare",
              "--pid",
              "--fork",
              "--kill-child",
              "--mount-proc",
              built("syngate"),
              "run",
              "--control",
              control,
              "--",
              "sh",
              "-c",
              "for i in 1 2 3; do sh -c 'sleep 0.1 & sleep 0.2 &'; done; exec " + config[0] + " -db -f " +
                  config[3]};
    Process agent(argv);
    const auto status = [&] {
        return nlohmann::json::parse(cli({"status", "--json", "--control", control}).out, nullptr, false);
    };
    ASSERT_TRUE(wait_until([&] { return status().is_object(); })) << agent.err();
    const auto zombies = [] { return run({"sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status"}).out; };
    EXPECT_TRUE(wait_until([&] {
        return run({"sh", "-c", "grep -lx sleep /proc/[0-9]*/comm"}).out.empty();
    }));
    EXPECT_TRUE(wait_until([&] { return zombies().empty(); })) << zombies();
    EXPECT_EQ(status()["agent"]["pid"], 1);
    // PID 1 has no default actions: the signal is handled, or nothing happens. To it, not to unshare.
    const pid_t first = std::stoi(run({"ps", "-o", "pid=", "--ppid", std::to_string(agent.pid())}).out);
    ASSERT_EQ(::kill(first, SIGTERM), 0);
    EXPECT_TRUE(agent.wait()) << agent.err();
    EXPECT_FALSE(listens(port));
}

TEST(Control, IsForRootAndTheOwnerOnly) {
    Agent agent(running({}, haproxy()));
    struct stat info {};
    ASSERT_EQ(::stat(agent.control().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0600U);
    ASSERT_EQ(::chmod(agent.control().c_str(), 0666), 0); // as a careless administrator might
    const auto refused = run({"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups",
                              built("syngate"), "reload", "--control", agent.control()});
    EXPECT_EQ(refused.status, (ExitStatus{1, 0})) << refused.out;
    EXPECT_NE(refused.err.find("uid"), std::string::npos) << refused.err;
    EXPECT_EQ(reloads(agent), 0);
    ASSERT_EQ(::chmod(agent.control().c_str(), 0600), 0);
    const auto kept_out = run({"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups",
                               built("syngate"), "status", "--control", agent.control()});
    EXPECT_EQ(kept_out.status, (ExitStatus{1, 0})) << kept_out.out;
    EXPECT_NE(kept_out.err.find("may not control"), std::string::npos) << kept_out.err;
}

TEST(Capabilities, AreNamedWhenMissing) {
    const auto before = traffic_control();
    const auto without = [](const char* dropped, const Argv& arguments) {
        Argv argv{"setpriv", "--inh-caps", dropped, "--bounding-set", dropped};
        const auto command = syngate(arguments);
        argv.insert(argv.end(), command.begin(), command.end());
        return run(argv);
    };
    const auto probe = without("-bpf,-sys_admin", {"probe", "--json"});
    EXPECT_EQ(probe.status, (ExitStatus{0, 0})) << probe.err; // by iptables
    EXPECT_NE(probe.out.find("CAP_BPF"), std::string::npos) << probe.out;
    for (const Argv& arguments :
         {Argv{"exec", "--mode", "bpf", "--ports", "80", "--", "true"}, running({"--mode", "bpf"}, haproxy()),
          Argv{"close", "--mode", "bpf", "--ports", "80"}}) {
        const auto result = without("-bpf,-sys_admin", arguments);
        EXPECT_EQ(result.status, (ExitStatus{3, 0})) << arguments[0] << result.err;
        EXPECT_NE(result.err.find("CAP_BPF"), std::string::npos) << result.err;
    }
    const auto of_user = haproxy({.global = "    user nobody\n"});
    const auto mute = without("-kill", running({}, of_user));
    EXPECT_EQ(mute.status, (ExitStatus{3, 0})) << mute.err;
    EXPECT_NE(mute.err.find("CAP_KILL"), std::string::npos) << mute.err;
    EXPECT_FALSE(listens(port)) << "it was started all the same";
    EXPECT_EQ(without("-net_admin,-bpf,-sys_admin", {"probe"}).status, (ExitStatus{3, 0}));
    const auto result = without("-net_admin,-sys_admin", {"exec", "--ports", "80", "--", "true"});
    EXPECT_EQ(result.status, (ExitStatus{3, 0})) << result.err;
    EXPECT_NE(result.err.find("CAP_NET_ADMIN"), std::string::npos) << result.err;
    EXPECT_EQ(traffic_control(), before);
    EXPECT_EQ(pins(), std::set<std::string>{});
}

// As in a container with a user of its own: the two capabilities that BPF needs, and no other.
struct Confined : testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(By, Confined, testing::Values("tcx", "tc", "xdp"),
                         [](const auto& of) { return std::string(of.param); });

TEST_P(Confined, AnotherUserNeedsNoOtherPrivilege) {
    const ClientHost hosts;
    const Listener server(port);
    const auto directory = scratch() + "/nobody";
    must_run({"install", "-d", "-o", nobody, directory});
    Process agent({"setpriv",
                   "--reuid",
                   nobody,
                   "--regid",
                   nobody,
                   "--clear-groups",
                   "--inh-caps",
                   "-all,+bpf,+net_admin",
                   "--ambient-caps",
                   "-all,+bpf,+net_admin",
                   "--bounding-set",
                   "-all,+bpf,+net_admin",
                   built("syngate"),
                   "exec",
                   "--control",
                   directory + "/a.sock",
                   "--ports",
                   "8080",
                   "--hook",
                   GetParam(),
                   "--",
                   "sleep",
                   "60"});
    EXPECT_TRUE(wait_until([&] {
        return !agent.runs() || knock(hosts.client, {ClientHost::server_v4, port}, 30ms) == Reply::silent;
    }));
    EXPECT_TRUE(agent.runs()) << agent.err();
    EXPECT_EQ(knock(hosts.client, {ClientHost::server_v6, port}), Reply::silent) << agent.err();
}

} // namespace syngate::live::robust
