// SPDX-License-Identifier: GPL-2.0-or-later
// The command line and the environment. Each test sets the variables that it names and takes them away.
#include "cli/options.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <vector>

namespace syngate {
namespace {

using namespace std::chrono_literals;

Result<Options> parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "syngate");
    return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

Options good(const std::vector<const char*>& arguments) {
    const auto options = parse(arguments);
    EXPECT_TRUE(options) << options.error().message;
    return options.value_or(Options{});
}

// The message, or "" where none or another kind of error came.
std::string usage_error(const std::vector<const char*>& arguments) {
    const auto options = parse(arguments);
    if (options || options.error().exit != Exit::usage)
        return "";
    return options.error().message;
}

struct OptionsTest : testing::Test {
    void set(const char* name, const char* value) {
        setenv(name, value, 1);
        names_.push_back(name);
    }
    void SetUp() override { unset("HAPROXY_PORTS"); }
    void TearDown() override {
        for (const char* name : names_)
            unset(name);
    }
    static void unset(const char* name) { unsetenv(name); }

private:
    std::vector<const char*> names_;
};

TEST_F(OptionsTest, DefaultsOfRun) {
    const Options o = good({"run", "--", "haproxy", "-f", "x.cfg"});
    EXPECT_EQ(o.verb, "run");
    EXPECT_EQ(o.command, (Argv{"haproxy", "-f", "x.cfg"}));
    EXPECT_TRUE(o.gate.ports.empty());
    EXPECT_EQ(o.gate.policy, Policy::hold);
    EXPECT_EQ(o.gate.flip, Flip::automatic);
    EXPECT_EQ(o.gate.mode, Mode::automatic);
    EXPECT_EQ(o.gate.hook, Hook::automatic);
    EXPECT_EQ(o.gate.lease, 3s);
    EXPECT_EQ(o.gate.max_window, 30s);
    EXPECT_EQ(o.gate.park_memory, 4U << 20);
    EXPECT_EQ(o.gate.bpffs, "/sys/fs/bpf/syngate");
    EXPECT_EQ(o.gate.runtime_dir, "/run/syngate");
    EXPECT_EQ(o.gate.handshake_timeout, 500ms);
    EXPECT_EQ(o.stop_timeout, 295s);
    EXPECT_EQ(o.start_timeout, 30s);
    EXPECT_EQ(o.swap_timeout, 5s);
    EXPECT_EQ(o.end_timeout, 10s);
    EXPECT_EQ(o.finish_timeout, 200ms);
    EXPECT_EQ(o.settle, 250ms);
    EXPECT_EQ(o.log_level, "info");
    EXPECT_EQ(o.control, "");
    EXPECT_FALSE(o.json);
    EXPECT_TRUE(o.watch.empty());
}

TEST_F(OptionsTest, PoliciesSayWhetherAndWhatElse) {
    for (const auto& [text, flip, policy] :
         {std::tuple{"auto", Flip::automatic, Policy::hold}, std::tuple{"flip", Flip::always, Policy::hold},
          std::tuple{"hold", Flip::never, Policy::hold}, std::tuple{"drop", Flip::never, Policy::drop}}) {
        const Options o = good({"run", "--policy", text, "--", "s"});
        EXPECT_EQ(o.gate.flip, flip) << text;
        EXPECT_EQ(o.gate.policy, policy) << text;
    }
}

TEST_F(OptionsTest, FlipsArePairsOfPorts) {
    EXPECT_EQ(good({"flip", "80=8081", "81=8082"}).flips, (PortFlips{{80, 8081}, {81, 8082}}));
    EXPECT_TRUE(good({"flip", "--clear"}).clear);
    EXPECT_EQ(good({"flip", "--clear", "80", "82"}).cleared, (PortSet{80, 82}));
    EXPECT_EQ(good({"run", "--flip-ports", "9001,9002", "--", "s"}).flip_ports, (PortSet{9001, 9002}));
}

TEST_F(OptionsTest, EveryOptionOfRunIsTaken) {
    const Options o = good({"run",
                            "--ports",
                            "80,8000-8001",
                            "--policy",
                            "drop",
                            "--mode",
                            "iptables",
                            "--hook",
                            "xdp",
                            "--lease",
                            "1s",
                            "--max-window",
                            "2s",
                            "--park-memory",
                            "64k",
                            "--bpffs",
                            "/b",
                            "--runtime-dir",
                            "/r",
                            "--handshake-timeout",
                            "100ms",
                            "--control",
                            "/c",
                            "--log-level",
                            "debug",
                            "--reload",
                            "signal=USR2",
                            "--check",
                            "/bin/check it",
                            "--stop-signal",
                            "QUIT",
                            "--watch",
                            "/a:/b",
                            "--watch",
                            "/c",
                            "--stop-timeout",
                            "1m",
                            "--start-timeout",
                            "2m",
                            "--swap-timeout",
                            "3",
                            "--end-timeout",
                            "4s",
                            "--finish-timeout",
                            "0",
                            "--settle",
                            "5ms",
                            "--",
                            "server"});
    EXPECT_EQ(o.gate.ports, (PortSet{80, 8000, 8001}));
    EXPECT_EQ(o.gate.policy, Policy::drop);
    EXPECT_EQ(o.gate.flip, Flip::never);
    EXPECT_EQ(o.gate.mode, Mode::iptables);
    EXPECT_EQ(o.gate.hook, Hook::xdp);
    EXPECT_EQ(o.gate.lease, 1s);
    EXPECT_EQ(o.gate.max_window, 2s);
    EXPECT_EQ(o.gate.park_memory, 65536U);
    EXPECT_EQ(o.gate.bpffs, "/b");
    EXPECT_EQ(o.gate.runtime_dir, "/r");
    EXPECT_EQ(o.gate.handshake_timeout, 100ms);
    EXPECT_EQ(o.control, "/c");
    EXPECT_EQ(o.log_level, "debug");
    EXPECT_EQ(o.reload, "signal=USR2");
    EXPECT_EQ(o.check, "/bin/check it");
    EXPECT_EQ(o.stop_signal, "QUIT");
    EXPECT_EQ(o.watch, (std::vector<std::string>{"/a", "/b", "/c"}));
    EXPECT_EQ(o.stop_timeout, 60s);
    EXPECT_EQ(o.start_timeout, 120s);
    EXPECT_EQ(o.swap_timeout, 3s);
    EXPECT_EQ(o.end_timeout, 4s);
    EXPECT_EQ(o.finish_timeout, 0s);
    EXPECT_EQ(o.settle, 5ms);
}

TEST_F(OptionsTest, PortsAutoIsWhereTheServerListens) {
    EXPECT_TRUE(good({"run", "--ports", "auto", "--", "s"}).gate.ports.empty());
}

TEST_F(OptionsTest, SizesHaveUnits) {
    for (const auto& [text, bytes] :
         std::vector<std::pair<const char*, std::size_t>>{{"4096", 4096}, {"64k", 65536}, {"4MiB", 4U << 20}})
        EXPECT_EQ(good({"run", "--park-memory", text, "--", "s"}).gate.park_memory, bytes) << text;
}

TEST_F(OptionsTest, WhatStandsBehindTheDashesIsTheCommands) {
    EXPECT_EQ(good({"run", "--", "server", "--help", "--ports", "1", "--", "x"}).command,
              (Argv{"server", "--help", "--ports", "1", "--", "x"}));
}

TEST_F(OptionsTest, TheEnvironmentStandsBehindTheCommandLine) {
    set("SYNGATE_PORTS", "80");
    set("SYNGATE_STOP_TIMEOUT", "7s");
    set("SYNGATE_POLICY", "drop");
    set("SYNGATE_CONTROL", "/from/environment");
    set("SYNGATE_WATCH", "/a:/b");
    const Options o = good({"run", "--", "s"});
    EXPECT_EQ(o.gate.ports, PortSet{80});
    EXPECT_EQ(o.stop_timeout, 7s);
    EXPECT_EQ(o.gate.policy, Policy::drop);
    EXPECT_EQ(o.control, "/from/environment");
    EXPECT_EQ(o.watch, (std::vector<std::string>{"/a", "/b"}));
    const Options told = good({"run", "--ports", "443", "--stop-timeout", "9s", "--", "s"});
    EXPECT_EQ(told.gate.ports, PortSet{443});
    EXPECT_EQ(told.stop_timeout, 9s);
    EXPECT_EQ(told.gate.policy, Policy::drop);
    EXPECT_EQ(good({"status"}).control, "/from/environment");
}

TEST_F(OptionsTest, JsonFromTheEnvironment) {
    set("SYNGATE_JSON", "1");
    EXPECT_TRUE(good({"status"}).json);
    EXPECT_TRUE(good({"probe"}).json);
}

TEST_F(OptionsTest, WrongValuesInTheEnvironmentAreUsageErrors) {
    set("SYNGATE_LEASE", "soon");
    EXPECT_NE(usage_error({"run", "--", "s"}).find("soon"), std::string::npos);
    EXPECT_NE(good({"status"}).verb, ""); // it has no lease
}

TEST_F(OptionsTest, HaproxyPortsStandBehindEverythingElse) {
    set("HAPROXY_PORTS", "80,443");
    EXPECT_EQ(good({"run", "--", "s"}).gate.ports, (PortSet{80, 443}));
    EXPECT_EQ(good({"run", "--ports", "81", "--", "s"}).gate.ports, PortSet{81});
    EXPECT_TRUE(good({"run", "--ports", "auto", "--", "s"}).gate.ports.empty());
    set("SYNGATE_PORTS", "82");
    EXPECT_EQ(good({"run", "--", "s"}).gate.ports, PortSet{82});
}

TEST_F(OptionsTest, HaproxyPortsMayBeEmptyOrAutoButNotWrong) {
    for (const char* value : {"", "auto"}) {
        set("HAPROXY_PORTS", value);
        EXPECT_TRUE(good({"run", "--", "s"}).gate.ports.empty()) << value;
    }
    set("HAPROXY_PORTS", "http");
    EXPECT_NE(usage_error({"run", "--", "s"}).find("HAPROXY_PORTS"), std::string::npos);
    EXPECT_EQ(good({"status"}).verb, "status");
}

TEST_F(OptionsTest, UsageErrorsNameWhatIsWrong) {
    const std::vector<std::pair<std::vector<const char*>, const char*>> cases = {
        {{}, "subcommand"},
        {{"dance"}, "dance"},
        {{"run"}, "behind --"},
        {{"run", "--"}, "behind --"},
        {{"exec", "--ports", "80"}, "behind --"},
        {{"run", "server"}, "server"},
        {{"exec", "--", "true"}, "must know the ports"},
        {{"exec", "--ports", "auto", "--", "true"}, "must know the ports"},
        {{"status", "--", "true"}, "takes no command"},
        {{"close", "--ports", "80", "--", "true"}, "takes no command"},
        {{"status", "--ports", "80"}, "--ports"},
        {{"--control", "/c", "status"}, "--control"},
        {{"run", "--ports", "0", "--", "s"}, "'0'"},
        {{"run", "--ports", "80,,81", "--", "s"}, "''"},
        {{"run", "--ports", "", "--", "s"}, "--ports"},
        {{"run", "--policy", "keep", "--", "s"}, "auto, drop, flip, hold"},
        {{"run", "--flip-ports", "9001", "--", "s"}, "two ports"},
        {{"flip"}, "80=8081"},
        {{"flip", "80"}, "80=8081"},
        {{"flip", "80=0"}, "80=8081"},
        {{"flip", "80=1", "80=2"}, "twice"},
        {{"flip", "--clear", "x"}, "x"},
        {{"run", "--hook", "nfqueue", "--", "s"}, "auto, tc, tcx, xdp"},
        {{"run", "--mode", "nft", "--", "s"}, "auto, bpf, iptables"},
        {{"run", "--lease", "soon", "--", "s"}, "soon"},
        {{"run", "--lease", "0", "--", "s"}, "longer than 0"},
        {{"run", "--lease", "31s", "--", "s"}, "--max-window"},
        {{"run", "--max-window", "2s", "--", "s"}, "--lease"},
        {{"run", "--max-window", "0", "--", "s"}, "longer than 0"},
        {{"run", "--handshake-timeout", "0", "--", "s"}, "longer than 0"},
        {{"run", "--settle", "-1", "--", "s"}, "--settle"},
        {{"run", "--finish-timeout", "x", "--", "s"}, "--finish-timeout"},
        {{"run", "--park-memory", "much", "--", "s"}, "much"},
        {{"run", "--park-memory", "4095", "--", "s"}, "between"},
        {{"run", "--park-memory", "2GiB", "--", "s"}, "between"},
        {{"run", "--park-memory", "99999999999999999999999", "--", "s"}, "--park-memory"},
        {{"run", "--log-level", "loud", "--", "s"}, "loud"},
        {{"run", "--lease"}, "--lease"},
        {{"run", "--wait-timeout", "1s", "--", "s"}, "--wait-timeout"},
        {{"reload", "--policy", "hold"}, "--policy"},
    };
    for (const auto& [arguments, mentions] : cases) {
        std::string line;
        for (const char* argument : arguments)
            line += std::string(" ") + argument;
        const std::string message = usage_error(arguments);
        EXPECT_NE(message, "") << line;
        EXPECT_NE(message.find(mentions), std::string::npos) << line << ": " << message;
    }
}

TEST_F(OptionsTest, HelpAndVersionAreAnswersNotErrors) {
    const Options version = good({"--version"});
    EXPECT_EQ(version.verb, "");
    EXPECT_EQ(version.text, "syngate " SYNGATE_VERSION "\n");
    EXPECT_NE(good({"--help"}).text.find("cleanup"), std::string::npos);
    EXPECT_NE(good({"run", "--help"}).text.find("--park-memory"), std::string::npos);
}

TEST_F(OptionsTest, TheHelpTellsEveryOptionsVariableAndDefault) {
    const std::string text = good({"run", "--help"}).text;
    for (const char* part : {"SYNGATE_PORTS", "SYNGATE_MAX_WINDOW", "[3s]", "[30s]", "[4MiB]", "[295s]"})
        EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

TEST_F(OptionsTest, CloseKeepsWhatWasWrittenForTheAgentThatIsAsked) {
    const Options o = good({"close", "--ports", "80", "--lease", "1.5s", "--json"});
    EXPECT_EQ(o.ports_text, "80");
    EXPECT_EQ(o.lease_text, "1.5s");
    EXPECT_EQ(o.gate.lease, 1500ms);
    EXPECT_TRUE(o.json);
    EXPECT_EQ(good({"close"}).lease_text, "");
}

TEST_F(OptionsTest, ExecWaits) {
    const Options o = good({"exec", "--ports", "80", "--wait-timeout", "1s", "--json", "--", "true"});
    EXPECT_EQ(o.wait_timeout, 1s);
    EXPECT_TRUE(o.json);
    EXPECT_EQ(good({"exec", "--ports", "80", "--", "true"}).wait_timeout, 30s);
}

TEST_F(OptionsTest, TransparentProxying) {
    using Wish = TransparentOptions::Wish;
    const auto none = good({"run", "--", "x"}).transparent;
    EXPECT_EQ(none.wish, Wish::automatic);
    EXPECT_TRUE(none.intercepts.empty());
    EXPECT_TRUE(check_options(none.route));
    const auto all = good({"run", "--transparent", "on", "--intercept", "80=8080", "--intercept",
                           "[2001:db8::]/32:80=8081", "--mark", "0x20/0xf0", "--table", "77",
                           "--rule-priority", "5", "--", "x"})
                         .transparent;
    EXPECT_EQ(all.wish, Wish::on);
    ASSERT_EQ(all.intercepts.size(), 2U);
    EXPECT_EQ(all.intercepts[1].listen_port, 8081);
    EXPECT_EQ(all.route.mark, 0x20U);
    EXPECT_EQ(all.route.mask, 0xf0U);
    EXPECT_EQ(all.route.table, 77U);
    EXPECT_EQ(all.route.priority, 5U);
    EXPECT_EQ(good({"run", "--mark", "16", "--", "x"}).transparent.route.mask, 16U) << "is its own mask";
    set("SYNGATE_INTERCEPT", "80=8080,443=8443");
    set("SYNGATE_TRANSPARENT", "on");
    const auto environment = good({"run", "--", "x"}).transparent;
    EXPECT_EQ(environment.wish, Wish::on);
    EXPECT_EQ(environment.intercepts.size(), 2U);
}

TEST_F(OptionsTest, TransparentProxyingThatCannotWorkIsRefused) {
    const std::vector<std::vector<const char*>> all = {{"--transparent", "yes"},
                                                       {"--intercept", "80"},
                                                       {"--intercept", "80=8080", "--intercept", "80=8081"},
                                                       {"--mark", "0"},
                                                       {"--mark", "0x3/0x1"},
                                                       {"--mark", "one"},
                                                       {"--mark", "0x"},
                                                       {"--table", "254"},
                                                       {"--table", "4294967296"},
                                                       {"--rule-priority", "0"},
                                                       {"--rule-priority", "32766"},
                                                       {"--transparent", "off", "--intercept", "80=8080"}};
    for (auto arguments : all) {
        arguments.insert(arguments.begin(), "run");
        arguments.insert(arguments.end(), {"--", "x"});
        EXPECT_NE(usage_error(arguments), "") << arguments[1] << ' ' << arguments[2];
    }
}

} // namespace
} // namespace syngate
