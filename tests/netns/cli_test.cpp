// SPDX-License-Identifier: GPL-2.0-or-later
// What a person or a script meets: exit statuses, messages, files, and that nothing is left of what failed.
#include "netns/robust_agent.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t other_port = 8081;
const Target here{"127.0.0.1", port};

struct Wrong {
    const char* name;
    Argv arguments;
    int exit;
    Argv words; // in the message
    std::vector<std::pair<std::string, std::string>> env = {};
};
void PrintTo(const Wrong& wrong, std::ostream* out) {
    *out << wrong.name;
}

class BadInput : public testing::TestWithParam<Wrong> {};

struct LeavesNothing {
    std::string before = traffic_control();
    std::set<std::string> pinned = pins();
    void expect() const {
        EXPECT_EQ(traffic_control(), before);
        EXPECT_EQ(pins(), pinned);
    }
};

std::string page() {
    return run({"/usr/bin/python3", "-c",
                "import urllib.request as u\n"
                "print(u.urlopen('http://127.0.0.1:8080/', timeout=5).read().decode(), end='')"})
        .out;
}

} // namespace

TEST_P(BadInput, IsNamedAndChangesNothing) {
    const Wrong& wrong = GetParam();
    const LeavesNothing nothing;
    const auto result = cli(wrong.arguments, {.extra_env = wrong.env});
    EXPECT_EQ(result.status, (ExitStatus{wrong.exit, 0})) << result.err;
    EXPECT_EQ(result.out, "");
    for (const auto& word : wrong.words)
        EXPECT_NE(result.err.find(word), std::string::npos) << "no '" << word << "' in: " << result.err;
    nothing.expect();
}

INSTANTIATE_TEST_SUITE_P(
    Each, BadInput,
    testing::Values(
        Wrong{"NoVerb", {}, 2, {"subcommand"}}, Wrong{"UnknownVerb", {"reboot"}, 2, {"'reboot' is no verb"}},
        Wrong{"UnknownOption", {"run", "--frobnicate", "--", "true"}, 2, {"--frobnicate"}},
        Wrong{"PortZero", {"exec", "--ports", "0", "--", "true"}, 2, {"--ports", "'0'", "1 to 65535"}},
        Wrong{"PortTooHigh", {"exec", "--ports", "65536", "--", "true"}, 2, {"'65536'"}},
        Wrong{"PortMissing", {"exec", "--ports", "80,,81", "--", "true"}, 2, {"''"}},
        Wrong{"PortsDescend", {"exec", "--ports", "90-80", "--", "true"}, 2, {"'90-80'"}},
        Wrong{"PortNoNumber", {"run", "--ports", "http", "--", "true"}, 2, {"'http'"}},
        Wrong{"PortsEmpty", {"exec", "--ports", "", "--", "true"}, 2, {"--ports"}},
        Wrong{"ExecWithoutPorts", {"exec", "--", "true"}, 2, {"--ports"}},
        Wrong{"CloseWithoutPortsOrAgent", {"close"}, 2, {"--ports"}},
        Wrong{"UnknownPolicy",
              {"exec", "--ports", "80", "--policy", "wait", "--", "true"},
              2,
              {"'wait'", "hold"}},
        Wrong{"UnknownHook",
              {"exec", "--ports", "80", "--hook", "nf", "--", "true"},
              2,
              {"'nf'", "tcx", "xdp"}},
        Wrong{"LeaseZero", {"exec", "--ports", "80", "--lease", "0", "--", "true"}, 2, {"--lease"}},
        Wrong{"LeaseNoTime",
              {"exec", "--ports", "80", "--lease", "soon", "--", "true"},
              2,
              {"'soon'", "250ms"}},
        Wrong{"LeaseOverMaxWindow",
              {"exec", "--ports", "80", "--lease", "2s", "--max-window", "1s", "--", "true"},
              2,
              {"--lease 2s", "--max-window 1s"}},
        Wrong{"ParkMemoryTooSmall",
              {"exec", "--ports", "80", "--park-memory", "1", "--", "true"},
              2,
              {"4 KiB"}},
        Wrong{"NoSeparator", {"run", "--ports", "80", "haproxy"}, 2, {"haproxy"}},
        Wrong{"NoCommand", {"run", "--ports", "80"}, 2, {"--"}},
        Wrong{"NothingBehindSeparator", {"exec", "--ports", "80", "--"}, 2, {"--"}},
        Wrong{"CommandForStatus", {"status", "--", "true"}, 2, {"takes no command"}},
        Wrong{"ServerMissing", {"run", "--", "/no/such/server"}, 2, {"/no/such/server", "No such file"}},
        Wrong{"CommandMissing", {"exec", "--ports", "80", "--", "/no/such/cmd"}, 2, {"/no/such/cmd"}},
        Wrong{"ServerNotExecutable", {"run", "--", "/etc/passwd"}, 2, {"/etc/passwd", "chmod"}},
        Wrong{"UnknownReload", {"run", "--reload", "magic", "--", "true"}, 2, {"'magic'", "overlap"}},
        Wrong{"UnknownSignal", {"run", "--stop-signal", "NONE", "--", "true"}, 2, {"'NONE'"}},
        Wrong{"UnknownLogLevel", {"run", "--log-level", "loud", "--", "true"}, 2, {"loud"}},
        Wrong{"PortsByEnvironment", {"exec", "--", "true"}, 2, {"'99999'"}, {{"SYNGATE_PORTS", "99999"}}},
        Wrong{"PolicyByEnvironment",
              {"exec", "--ports", "80", "--", "true"},
              2,
              {"'never'"},
              {{"SYNGATE_POLICY", "never"}}},
        Wrong{"HaproxyPorts", {"run", "--", "true"}, 2, {"HAPROXY_PORTS", "'x'"}, {{"HAPROXY_PORTS", "x"}}},
        Wrong{"NobodyToReload", {"reload"}, 1, {"no agent", "syngate run"}},
        Wrong{"NobodyToOpen", {"open"}, 1, {"no agent"}},
        Wrong{"NobodyAtTheSocket", {"status", "--control", "/run/nobody.sock"}, 1, {"/run/nobody.sock"}},
        Wrong{
            "WatchOfNothing", {"run", "--watch", "/no/such/file", "--", "sleep", "9"}, 2, {"/no/such/file"}}),
    [](const auto& of) { return std::string(of.param.name); });

TEST(Start, OfAServerThatNeverListensFailsAndLeavesNothing) {
    const LeavesNothing nothing;
    const auto result = cli(running({"--start-timeout", "500ms"}, {"sleep", "100"}));
    EXPECT_EQ(result.status, (ExitStatus{1, 0}));
    EXPECT_NE(result.err.find("does not listen within 500ms"), std::string::npos) << result.err;
    EXPECT_FALSE(run({"sh", "-c", "grep -l '^sleep$' /proc/[0-9]*/comm"}).ok());
    nothing.expect();
}

TEST(Start, OfAConfigurationThatDoesNotParseFailsWithHaproxysWords) {
    const LeavesNothing nothing;
    const auto result = cli(running({}, haproxy_argv(write_file("bad.cfg", "nonsense\n"))));
    EXPECT_EQ(result.status, (ExitStatus{1, 0}));
    EXPECT_NE(result.err.find("unknown keyword 'nonsense'"), std::string::npos) << result.err;
    nothing.expect();
}

TEST(Reload, OfAConfigurationThatDoesNotParseLeavesTheOldServer) {
    Agent agent(running({}, haproxy({.ports = {port}, .body = "old\n"})));
    ASSERT_EQ(page(), "old\n");
    const auto pid = agent.ask("status")["server"]["pid"];
    write_file("haproxy.cfg", "nonsense\n");
    const auto result = cli({"reload", "--control", agent.control()});
    EXPECT_EQ(result.status, (ExitStatus{1, 0}));
    EXPECT_NE(result.err.find("unknown keyword 'nonsense'"), std::string::npos) << result.err;
    EXPECT_EQ(page(), "old\n");
    const auto status = agent.ask("status");
    EXPECT_EQ(status["server"]["pid"], pid);
    EXPECT_EQ(status["reloads"]["failed"], 1);
    EXPECT_EQ(status["last"]["gated"], ""); // no window at all
    haproxy({.ports = {port}, .body = "new\n"});
    EXPECT_EQ(agent.ask("reload")["exit"], 0);
    EXPECT_EQ(page(), "new\n");
}

TEST(Claim, OfATakenPortIsRefusedWithTheOwnersName) {
    const Listener server(port);
    Closed first({"--ports", "8080,8082"});
    const auto second = cli({"exec", "--ports", "80,8082", "--", "true"});
    EXPECT_EQ(second.status, (ExitStatus{4, 0}));
    for (const auto& word :
         {std::string("8082"), fmt::format("pid {}", first.process.pid()), first.control()})
        EXPECT_NE(second.err.find(word), std::string::npos) << word << ": " << second.err;
    EXPECT_EQ(first.ask("status")["exit"], 0);
    // What stands around a command may stand around another agent (ADR 9), which has its own sort to fear.
    EXPECT_EQ(cli({"close", "--ports", "8080", "--lease", "20s"}).status, (ExitStatus{0, 0}));
    const auto third = cli(running({"--ports", "8080"}, haproxy()));
    EXPECT_EQ(third.status, (ExitStatus{4, 0})) << third.err;
}

// Without --ports the ports are known only when the server listens.
TEST(Claim, OfWhatTheServerListensOnFailsTheStart) {
    ASSERT_EQ(cli({"close", "--ports", "8081", "--lease", "20s"}).status, (ExitStatus{0, 0}));
    const int first = nlohmann::json::parse(cli({"status", "--json"}).out)["agent"]["pid"];
    const auto before = traffic_control();
    const auto second = cli(running({}, haproxy({.ports = {other_port}})));
    EXPECT_EQ(second.status, (ExitStatus{4, 0})) << second.err;
    EXPECT_NE(second.err.find(fmt::format("pid {}", first)), std::string::npos) << second.err;
    EXPECT_FALSE(listens(other_port));
    EXPECT_EQ(traffic_control(), before);
}

TEST(Exec, PassesTheCommandsStatusOn) {
    const Listener server(port);
    for (const auto& [script, code] : {std::pair("exit 0", 0), std::pair("exit 7", 7),
                                       std::pair("kill -TERM $$", 143), std::pair("kill -SEGV $$", 139)}) {
        const auto result = cli({"exec", "--ports", "8080", "--", "sh", "-c", script});
        EXPECT_EQ(result.status, (ExitStatus{code, 0})) << script << result.err;
    }
    const auto out = cli({"exec", "--ports", "8080", "--", "echo", "--json", "--"});
    EXPECT_EQ(out.out, "--json --\n"); // untouched, and nothing of ours between
}

TEST(Exec, OpensOnlyWhenThePortListensAgain) {
    const ClientHost hosts;
    const Target target{ClientHost::server_v4, port};
    Process exec(syngate({"exec", "--ports", "8080", "--wait-timeout", "20s", "--", "sh", "-c",
                          fmt::format("echo > {}/command-ended", scratch())}));
    ASSERT_TRUE(wait_until([] { return ::access((scratch() + "/command-ended").c_str(), F_OK) == 0; }));
    EXPECT_EQ(knock(hosts.client, target), Reply::silent);
    EXPECT_TRUE(exec.runs());
    const Listener server(port);
    EXPECT_EQ(exec.wait(), (ExitStatus{0, 0})) << exec.err();
    EXPECT_EQ(knock(hosts.client, target), Reply::connected);
}

TEST(Exec, GivesUpWhenNothingListensAndWhenToldTo) {
    const auto result = cli({"exec", "--ports", "8080", "--wait-timeout", "300ms", "--", "true"});
    EXPECT_EQ(result.status, (ExitStatus{1, 0}));
    EXPECT_NE(result.err.find("nothing listens on all of 8080 within 300ms"), std::string::npos)
        << result.err;

    Process exec(syngate(
        {"exec", "--ports", "8080", "--", "sh", "-c", fmt::format("echo > {}/ended-again", scratch())}));
    ASSERT_TRUE(wait_until([] { return ::access((scratch() + "/ended-again").c_str(), F_OK) == 0; }));
    // The command may still be there for the first one.
    const bool ended = wait_until(
        [&] {
            exec.signal(SIGTERM);
            return !exec.runs();
        },
        3s);
    EXPECT_TRUE(ended) << exec.err();
    EXPECT_NE(exec.wait(), (ExitStatus{0, 0}));
}

TEST(Close, WithoutAnAgentStaysUntilOpen) {
    const ClientHost hosts;
    const Listener server(port);
    const LeavesNothing nothing;
    const Target target{ClientHost::server_v4, port};
    const auto closed = cli({"close", "--ports", "8080", "--lease", "20s"});
    EXPECT_TRUE(closed.ok()) << closed.err;
    EXPECT_EQ(closed.out, "closed\n");
    EXPECT_EQ(knock(hosts.client, target), Reply::silent);
    EXPECT_EQ(cli({"close", "--ports", "8080"}).status, (ExitStatus{4, 0}));
    const auto status = nlohmann::json::parse(cli({"status", "--json"}).out);
    EXPECT_EQ(status["gate"]["closed"], true);
    EXPECT_EQ(status["agent"]["command"], "close");
    const auto opened = cli({"open"});
    EXPECT_TRUE(opened.ok()) << opened.err;
    EXPECT_EQ(knock(hosts.client, target), Reply::connected);
    EXPECT_TRUE(wait_until([] { return cli({"open"}).status == ExitStatus{1, 0}; })); // it has gone
    nothing.expect();
}

TEST(Close, WithoutAnAgentEndsWithItsLease) {
    const ClientHost hosts;
    const Listener server(port);
    const LeavesNothing nothing;
    const Target target{ClientHost::server_v4, port};
    EXPECT_TRUE(cli({"close", "--ports", "8080", "--lease", "700ms"}).ok());
    EXPECT_EQ(knock(hosts.client, target, 50ms), Reply::silent);
    EXPECT_TRUE(answered(hosts.client, target, 3s));
    EXPECT_TRUE(wait_until([] { return cli({"status"}).status == ExitStatus{1, 0}; }));
    nothing.expect();
}

TEST(Close, OfARunningAgentIsLimitedByItsOwnMaxWindow) {
    const ClientHost hosts;
    Agent agent(running({"--lease", "300ms", "--max-window", "600ms"}, haproxy()));
    const Target target{ClientHost::server_v4, port};
    // Either it is refused, or it is over when the longest window is.
    const auto closed = agent.ask("close", {"--lease", "20s"});
    if (closed["exit"] == 0) {
        EXPECT_TRUE(answered(hosts.client, target, 3s));
        EXPECT_TRUE(wait_until([&] { return agent.ask("status")["closed_by_hand"] == false; }, 3s));
        EXPECT_EQ(agent.ask("reload")["exit"], 0) << agent.process.err();
    } else {
        EXPECT_EQ(closed["exit"], 2) << closed;
    }
    EXPECT_EQ(agent.ask("close", {"--ports", "1"})["exit"], 0);
    EXPECT_EQ(agent.ask("close")["exit"], 4);
    EXPECT_EQ(agent.ask("reload")["exit"], 4);
    EXPECT_EQ(agent.ask("open")["exit"], 0);
    EXPECT_EQ(agent.ask("open")["exit"], 1);
    EXPECT_EQ(agent.ask("close", {"--ports", "x"})["exit"], 2);
}

TEST(Json, IsValidWhereverItIsOffered) {
    const auto probe = cli({"probe", "--json"});
    EXPECT_TRUE(probe.ok()) << probe.out;
    EXPECT_EQ(nlohmann::json::parse(probe.out)["mode"], "bpf");
    EXPECT_TRUE(cli({"probe"}).ok());
    const Listener server(port);
    const auto exec = cli({"exec", "--ports", "8080", "--json", "--", "sh", "-c", "exit 3"});
    EXPECT_EQ(exec.status, (ExitStatus{3, 0}));
    EXPECT_EQ(nlohmann::json::parse(exec.out)["command_exit"], 3);
    Closed agent({"--ports", "8080"});
    EXPECT_EQ(agent.ask("status")["agent"]["pid"], agent.process.pid());
    EXPECT_TRUE(cli({"status"}).out.contains("closed")); // found by the network namespace
}

} // namespace syngate::live::robust
