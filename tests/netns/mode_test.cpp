// SPDX-License-Identifier: GPL-2.0-or-later
// Mode auto: who may not use BPF gets the same reload by iptables, and is told why.
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"
#include "netns/sandbox.hpp"
#include "probe/features.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <sys/file.h>

namespace syngate::live {

namespace {

constexpr std::uint16_t port = 8080;

struct Denial {
    const char* name;
    Argv before; // the program that denies BPF
    std::vector<std::pair<std::string, std::string>> env;
};

std::vector<Denial> denials() {
    constexpr auto dropped = "-bpf,-sys_admin,-perfmon";
    return {{"capabilities", {"setpriv", "--inh-caps", dropped, "--bounding-set", dropped}, {}},
            {"seccomp", {built("syngate-without-bpf")}, {}},
            {"switched_off", {}, {{"SYNGATE_NO_FEATURE", "bpf"}}}};
}

Argv around(const Denial& denial, const Argv& arguments) {
    Argv argv = denial.before;
    const Argv command = robust::syngate(arguments);
    argv.insert(argv.end(), command.begin(), command.end());
    return argv;
}

} // namespace

TEST(ModeAuto, ReloadsByIptablesWhereBpfIsDenied) {
    const ClientHost hosts;
    make_legacy_tables();
    const auto before = all_rules();
    for (const Denial& denial : denials()) {
        SCOPED_TRACE(denial.name);
        Agent agent({.server = {"haproxy", "-f", write_file("haproxy.cfg", haproxy_config())},
                     .options = {},
                     .extra_env = denial.env,
                     .before = denial.before});
        EXPECT_EQ(agent.status()["gate"]["mode"], "iptables");
        EXPECT_TRUE(agent.log().contains("mode iptables (nft), as BPF is not possible: ")) << agent.log();
        LoadRun load(hosts.client, {.to = {fmt::format("{}:{}", ClientHost::server_v4, port),
                                           fmt::format("[{}]:{}", ClientHost::server_v6, port)},
                                    .rate = 500});
        std::uint64_t parked = 0;
        for (const char* verb : {"reload", "restart", "reload", "restart"}) {
            const auto outcome = agent.ask(verb);
            EXPECT_EQ(outcome["exit"], 0) << outcome.dump(2);
            EXPECT_EQ(outcome["replayed"], outcome["parked"]) << outcome.dump(2);
            EXPECT_EQ(outcome["dropped"], 0) << outcome.dump(2);
            parked += outcome["parked"].get<std::uint64_t>();
        }
        const auto result = load.finish();
        EXPECT_EQ(result.failed(), 0U) << result.report.dump(2);
        EXPECT_GT(result.outcome("ok"), 20U);
        const double lateness_ms = result.report["max_lateness_ms"];
        EXPECT_LE(result.latency_ms("max"), 500 + lateness_ms) << result.report.dump(2);
        EXPECT_GT(parked, 0U);
        EXPECT_EQ(agent.stop(), (ExitStatus{0, 0}));
        EXPECT_EQ(all_rules(), before);
    }
}

// Later it may be possible: 3 would tell a service manager not to try again.
TEST(ModeAuto, ABusyLockIsNoReasonToGiveUpForGood) {
    make_legacy_tables();
    const Fd lock(::open("/run/xtables.lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::flock(lock.get(), LOCK_EX | LOCK_NB), 0);
    const auto refused =
        run(robust::syngate({"exec", "--ports", "81", "--", "true"}),
            {.extra_env = {{"SYNGATE_NO_FEATURE", "bpf,iptables_nft"}}}, std::chrono::minutes(1));
    EXPECT_EQ(refused.status, (ExitStatus{4, 0})) << refused.err;
    EXPECT_TRUE(refused.err.contains("xtables lock")) << refused.err;
}

TEST(ModeAuto, WhoMayNotReadTheRulesDoesNotSayThatNothingIsLeft) {
    make_legacy_tables();
    constexpr auto dropped = "-net_admin,-net_raw,-sys_admin,-bpf";
    const auto cleanup =
        run({"setpriv", "--inh-caps", dropped, "--bounding-set", dropped, built("syngate"), "cleanup"});
    EXPECT_EQ(cleanup.status, (ExitStatus{1, 0})) << cleanup.out << cleanup.err;
    EXPECT_FALSE(cleanup.out.contains("nothing was left")) << cleanup.out;
    EXPECT_TRUE(cleanup.err.contains("cannot read the rules")) << cleanup.err;
}

TEST(ModeAuto, ProbeSaysWhichAndWhy) {
    for (const Denial& denial : denials()) {
        SCOPED_TRACE(denial.name);
        const auto result = run(around(denial, {"probe", "--json"}), {.extra_env = denial.env});
        ASSERT_TRUE(result.ok()) << result.out << result.err;
        const auto json = nlohmann::json::parse(result.out);
        EXPECT_EQ(json["mode"], "iptables");
        EXPECT_EQ(json["hook"], "nft");
        EXPECT_EQ(json["policy"], "hold");
        EXPECT_TRUE(json["why"].get<std::string>().starts_with("not BPF, ")) << json["why"];
    }
    const auto json = nlohmann::json::parse(must_run(robust::syngate({"probe", "--json"})));
    EXPECT_EQ(json["mode"], "bpf");
    for (const auto& feature : json["features"])
        EXPECT_EQ(feature["available"], true) << feature;
}

TEST(ModeAuto, ProbeTellsWhatIsSwitchedOff) {
    const auto result =
        run(robust::syngate({"probe", "--json"}),
            {.extra_env = {
                 {"SYNGATE_NO_FEATURE", "tcx,ringbuf,xt_time,iptables_legacy,nfqueue,xt_TPROXY,xt_DNAT"}}});
    const auto json = nlohmann::json::parse(result.out);
    EXPECT_EQ(json["mode"], "bpf");
    EXPECT_EQ(json["hook"], "tc");
    EXPECT_EQ(json["otherwise"], "drop"); // where nothing can be flipped
    std::set<std::string> off;
    for (const auto& feature : json["features"])
        if (feature["how"] == "switched off by SYNGATE_NO_FEATURE" && feature["available"] == false)
            off.insert(feature["name"]);
    EXPECT_EQ(off, (std::set<std::string>{"tcx", "ringbuf", "xt_time", "iptables_legacy", "nfqueue",
                                          "xt_TPROXY", "xt_DNAT"}));
    const auto unknown = run(robust::syngate({"probe"}), {.extra_env = {{"SYNGATE_NO_FEATURE", "tcx,warp"}}});
    EXPECT_EQ(unknown.status, (ExitStatus{2, 0}));
    EXPECT_TRUE(unknown.err.contains("'warp' is no feature")) << unknown.err;
}

TEST(ModeAuto, ProbeTellsOfEveryFeatureHowItWasFound) {
    const std::multiset<std::string> all(std::begin(feature::all), std::end(feature::all));
    const auto json = nlohmann::json::parse(must_run(robust::syngate({"probe", "--json"})));
    const std::string text = must_run(robust::syngate({"probe"}));
    std::multiset<std::string> told;
    for (const auto& feature : json["features"]) {
        const std::string name = feature["name"], how = feature["how"];
        told.insert(name);
        // What was tried, and how it went: not what stands there where nothing was.
        EXPECT_TRUE(how.contains(": ok") || how.ends_with(": the kernel knows TCX")) << feature;
        EXPECT_EQ(how.find("not probed"), how.npos) << feature;
        EXPECT_TRUE(text.contains(fmt::format("{:15} yes  {}\n", name, how))) << feature << text;
    }
    EXPECT_EQ(told, all);
    // One variant of iptables is off in each half.
    for (const std::size_t half : {0U, 1U, 2U}) {
        std::multiset<std::string> switched, off;
        for (std::size_t i = 0; i < std::size(feature::all); ++i)
            if (half == 2 || i % 2 == half)
                switched.emplace(feature::all[i]);
        const auto found = nlohmann::json::parse(
            run(robust::syngate({"probe", "--json"}),
                {.extra_env = {{"SYNGATE_NO_FEATURE", fmt::format("{}", fmt::join(switched, ","))}}})
                .out);
        told.clear();
        for (const auto& feature : found["features"]) {
            told.insert(feature["name"].get<std::string>());
            EXPECT_NE(feature["how"], "") << feature;
            if (feature["how"] == "switched off by SYNGATE_NO_FEATURE" && feature["available"] == false)
                off.insert(feature["name"].get<std::string>());
        }
        EXPECT_EQ(off, switched);
        EXPECT_EQ(told, all);
    }
}

TEST(ModeAuto, TakesTheVariantWhoseTablesHoldRules) {
    const auto hook = [] {
        robust::Closed agent({"--mode", "iptables", "--ports", "80"});
        return agent.ask("status")["gate"]["hook"].get<std::string>();
    };
    EXPECT_EQ(hook(), "nft"); // the default of Debian
    must_run({"ip6tables-legacy", "-A", "FORWARD", "-p", "udp", "-j", "ACCEPT"});
    EXPECT_EQ(hook(), "legacy");
    must_run({"iptables-nft", "-A", "FORWARD", "-p", "udp", "-j", "ACCEPT"});
    EXPECT_EQ(hook(), "nft");
}

TEST(SwitchedOff, FeaturesOfBpfAreNotUsed) {
    const ClientHost hosts;
    const robust::Listener server(80);
    {
        robust::Closed agent({"--ports", "80"}, {.extra_env = {{"SYNGATE_NO_FEATURE", "tcx,bpffs"}}});
        const auto gate = agent.ask("status")["gate"];
        EXPECT_EQ(gate["mode"], "bpf");
        EXPECT_EQ(gate["hook"], "tc");
        EXPECT_EQ(gate["no_pins_because"], "switched off by SYNGATE_NO_FEATURE");
        EXPECT_EQ(robust::knock(hosts.client, {ClientHost::server_v4, 80}), robust::Reply::silent);
        agent.end();
    }
    robust::Closed agent({"--ports", "80"}, {.extra_env = {{"SYNGATE_NO_FEATURE", "live_frames"}}});
    EXPECT_EQ(robust::knock(hosts.client, {ClientHost::server_v4, 80}), robust::Reply::silent);
    EXPECT_EQ(agent.ask("status")["gate"]["verdicts"]["hold_unavailable"], 1);
    const auto refused =
        robust::cli({"exec", "--mode", "bpf", "--hook", "tcx", "--ports", "81", "--", "true"},
                    {.extra_env = {{"SYNGATE_NO_FEATURE", "tcx"}}});
    EXPECT_EQ(refused.status, (ExitStatus{3, 0})) << refused.err;
}

// As on a kernel before 5.9.
TEST(SwitchedOff, WithoutSkLookupAutoHoldsAndFlipRefuses) {
    const ClientHost hosts;
    const std::vector<std::pair<std::string, std::string>> off{{"SYNGATE_NO_FEATURE", "sk_lookup"}};
    const auto probe =
        nlohmann::json::parse(run(robust::syngate({"probe", "--json"}), {.extra_env = off}).out);
    EXPECT_EQ(probe["policy"], "hold") << probe.dump(2);
    {
        Agent agent({.server = haproxy(), .extra_env = off});
        EXPECT_TRUE(agent.log().contains("sk_lookup is switched off")) << agent.log();
        const auto outcome = agent.ask("reload");
        EXPECT_EQ(outcome["exit"], 0) << outcome.dump(2);
        EXPECT_EQ(outcome["gated"], "8080");
        EXPECT_EQ(outcome["flipped"], "");
        agent.stop();
    }
    const auto refused = robust::cli(robust::running({"--policy", "flip"}, haproxy()), {.extra_env = off});
    EXPECT_EQ(refused.status, (ExitStatus{3, 0})) << refused.err;
}

} // namespace syngate::live
