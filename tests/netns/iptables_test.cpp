// SPDX-License-Identifier: GPL-2.0-or-later
// The invariants as far as they are iptables' own: whose rules stay, who opens a gate that is left closed,
// what happens where an extension is missing. What a client sees is conformance_test's and mode_test's.
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"

#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <tuple>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 80;
constexpr Duration slack = 600ms; // two busy cores, and a knock lasts 20 ms

class Iptables : public testing::TestWithParam<const char*> {
protected:
    Iptables() { make_legacy_tables(); }
    ~Iptables() override { remove_all_rules(); } // another test may follow in this process
    [[nodiscard]] std::string variant() const { return GetParam(); }
    [[nodiscard]] SpawnOptions by(const std::string& without = "") const {
        return {.extra_env = {only_variant(variant(), without)}};
    }
    [[nodiscard]] static Argv how(const Argv& more) {
        Argv all{"--mode", "iptables", "--ports", std::to_string(port)};
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
    // As an administrator would; "iptables" or "ip6tables".
    void rule(const std::string& family, const Argv& arguments) const {
        Argv argv{fmt::format("{}-{}", family, variant()), "-w"};
        argv.insert(argv.end(), arguments.begin(), arguments.end());
        must_run(argv);
    }
    void add_foreign_rules() const {
        for (const std::string family : {"iptables", "ip6tables"}) {
            rule(family, {"-N", "theirs"});
            rule(family, {"-A", "theirs", "-p", "tcp", "--dport", "9999", "-m", "comment", "--comment",
                          "not SYNGATE's -- \"quoted\"", "-j", "DROP"});
            rule(family, {"-A", "INPUT", "-j", "theirs"});
            rule(family, {"-t", "mangle", "-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"});
            rule(family, {"-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--set-mark", "7/0xff"});
        }
    }
    void expect_both(Reply expected) {
        EXPECT_EQ(knock(hosts.client, v4), expected);
        EXPECT_EQ(knock(hosts.client, v6), expected);
    }

    ClientHost hosts;
    Target v4{ClientHost::server_v4, port};
    Target v6{ClientHost::server_v6, port};
};

std::string name_of(const testing::TestParamInfo<const char*>& info) {
    return info.param;
}

const char* const policies[] = {"hold", "drop"};

} // namespace

TEST_P(Iptables, RulesAreAsBeforeAfterACleanStop) {
    const Listener server(port);
    for (const bool with_others : {false, true}) {
        if (with_others)
            add_foreign_rules();
        const auto before = all_rules();
        for (const char* policy : policies) {
            {
                Closed agent(how({"--policy", policy}), by());
                EXPECT_EQ(agent.ask("status")["gate"]["hook"], variant());
                EXPECT_NE(all_rules(), before);
                EXPECT_TRUE(all_rules().contains("INPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN -j SYNGATE-"));
                expect_both(Reply::silent);
                agent.end();
            }
            EXPECT_EQ(all_rules(), before) << policy;
            expect_both(Reply::connected);
        }
    }
}

// Before the first window there is nothing at all to be left behind, later no rule: what the nft variant made
// for them stays, as taking a base chain away empties every NFQUEUE, whoever's it is.
TEST_P(Iptables, AnAgentWithAnOpenGateHasNoRules) {
    const auto before = all_rules();
    Argv run{"run"};
    const auto options = how({"--"});
    run.insert(run.end(), options.begin(), options.end());
    const auto haproxy = live::haproxy({.ports = {port}});
    run.insert(run.end(), haproxy.begin(), haproxy.end());
    Agent agent(run, by());
    EXPECT_EQ(all_rules(), before);
    EXPECT_EQ(agent.ask("restart")["exit"], 0) << agent.process.err();
    EXPECT_FALSE(all_rules().contains("-A ")) << all_rules();
    const bool is_nft = variant() == "nft";
    EXPECT_EQ(all_rules() == before, !is_nft);
    EXPECT_EQ(must_run({"nft", "list", "ruleset"}).contains("hook input"), is_nft);
    agent.kill();
    EXPECT_TRUE(cli({"cleanup"}).ok());
    EXPECT_EQ(all_rules(), before);
}

// An agent that waits for the lock answers others that ask for its ports, and takes what it would have put
// into place with it when it is killed.
TEST_P(Iptables, AnAgentThatWaitsForTheLockAnswersAndLeavesNothing) {
    if (variant() == "nft")
        return; // it has no lock
    const auto before = all_rules();
    Fd lock(::open("/run/xtables.lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::flock(lock.get(), LOCK_EX | LOCK_NB), 0);
    const Listener other_server(82);
    const auto before_it = processes();
    Process waiting(syngate({"exec", "--mode", "iptables", "--ports", "81", "--", "true"}),
                    {.extra_env = by().extra_env});
    pid_t restore = 0;
    ASSERT_TRUE(wait_until([&] {
        for (const pid_t each : processes()) {
            std::ifstream name(fmt::format("/proc/{}/comm", each));
            std::string text;
            if (std::getline(name, text) && text.starts_with("iptables-lega") && !before_it.contains(each) &&
                read_file(fmt::format("/proc/{}/cmdline", each)).contains("restore"))
                restore = each;
        }
        return restore != 0;
    }));
    const auto began = Clock::now();
    const auto other = cli({"exec", "--mode", "bpf", "--ports", "82", "--", "true"});
    EXPECT_TRUE(other.ok()) << other.err;
    EXPECT_LT(to_us(Clock::now() - began), to_us(2500ms)); // who asks waits 3 s
    waiting.signal(SIGKILL);
    EXPECT_TRUE(waiting.wait());
    // At once, not when it has waited long enough (5 s).
    EXPECT_TRUE(wait_until([&] { return !processes().contains(restore); }, 3s));
    lock.reset();
    EXPECT_EQ(all_rules(), before);
}

TEST_P(Iptables, OpensByItselfAfterSigkillAndTheNextOneSweeps) {
    const Listener server(port);
    add_foreign_rules();
    const auto before = all_rules();
    for (const bool by_start : {true, false}) {
        for (const char* policy : policies) {
            Closed agent(how({"--policy", policy, "--lease", "2s"}), by());
            expect_both(Reply::silent);
            agent.kill();
            const auto killed_at = Clock::now();
            EXPECT_NE(all_rules(), before);
            // Nobody is behind the queue any more; a rule that drops waits for the lease.
            const Duration limit = policy == std::string("hold") ? 0s : 2s;
            for (const auto& target : {v4, v6}) {
                const auto when = answered(hosts.client, target, 10s);
                ASSERT_TRUE(when) << target.address;
                EXPECT_LE(to_us(*when - killed_at), to_us(limit + slack)) << policy << target.address;
            }
            if (by_start) {
                Closed next(how({"--policy", policy}), by());
                expect_both(Reply::silent);
                next.end();
                EXPECT_TRUE(next.process.err().contains("of a dead agent")) << next.process.err();
            } else {
                const auto result = cli({"cleanup"});
                EXPECT_TRUE(result.ok()) << result.err;
                EXPECT_TRUE(result.out.contains(
                    fmt::format("removed the IPv6 rules (iptables {}) of a dead agent", variant())))
                    << result.out;
            }
            EXPECT_EQ(all_rules(), before);
        }
    }
}

// In a namespace where iptables was never used: its tables are gone, too, if it is the nft variant's.
TEST_P(Iptables, SweepingLeavesNoTables) {
    const auto before = all_rules();
    {
        Closed agent(how({}), by());
        agent.kill();
    }
    EXPECT_NE(all_rules(), before);
    EXPECT_TRUE(cli({"cleanup"}).ok());
    EXPECT_EQ(all_rules(), before);
    EXPECT_EQ(must_run({"nft", "list", "ruleset"}), "");
}

TEST_P(Iptables, RulesOfALivingAgentAreNotSwept) {
    const Listener server(port);
    Closed living(how({}), by());
    const auto with_it = all_rules();
    EXPECT_TRUE(cli({"cleanup"}).out.contains("nothing was left"));
    {
        Closed other({"--mode", "iptables", "--ports", "81"}, by());
        EXPECT_NE(all_rules(), with_it);
        other.end();
    }
    EXPECT_EQ(all_rules(), with_it);
    expect_both(Reply::silent);
}

TEST_P(Iptables, OpensAtLeaseEndOfAStoppedAgentAndStaysOpen) {
    const Listener server(port);
    for (const char* without : {"", "xt_recent"}) { // by either clock
        for (const char* policy : policies) {
            Closed agent(how({"--policy", policy, "--lease", "2s"}), by(without));
            ASSERT_EQ(knock(hosts.client, v4), Reply::silent); // parked, if SYNs are held
            agent.process.signal(SIGSTOP);
            const auto stopped_at = Clock::now();
            const auto when = answered(hosts.client, v4, 10s);
            ASSERT_TRUE(when);
            EXPECT_LE(to_us(*when - stopped_at), to_us(2s + slack)) << without;
            agent.process.signal(SIGCONT);
            for (int i = 0; i < 20; ++i) {
                expect_both(Reply::connected);
                if (i % 10 == 0) {
                    EXPECT_FALSE(agent.ask("status")["gate"]["closed"]);
                }
            }
            agent.process.signal(SIGTERM);
            agent.process.wait();
            EXPECT_TRUE(agent.process.err().contains(" 0 replayed")) << agent.process.err();
            if (policy == std::string("hold")) {
                EXPECT_FALSE(agent.process.err().contains(" 0 expired")) << agent.process.err();
            }
        }
    }
}

TEST_P(Iptables, OpensAfterTheLongestWindowHoweverOftenItIsRenewed) {
    const Listener server(port);
    for (const char* without : {"", "xt_recent"}) {
        const auto begun = Clock::now();
        Closed agent(how({"--lease", "1s", "--max-window", "2500ms"}), by(without));
        const auto closed_by = Clock::now();
        const auto when = answered(hosts.client, v4, 10s);
        ASSERT_TRUE(when);
        // The kernel's lease is not pushed on beyond the longest window, and was renewed every third of it.
        EXPECT_GE(*when - begun, 2500ms - 1000ms / 3) << without;
        EXPECT_LE(to_us(*when - closed_by), to_us(2500ms + slack)) << without;
        agent.process.signal(SIGTERM);
        agent.process.wait();
        EXPECT_TRUE(agent.process.err().contains("--max-window")) << agent.process.err();
    }
}

TEST_P(Iptables, WhenStoppedInTheMiddleOfARestartTheRulesAreAsBefore) {
    add_foreign_rules();
    const auto before = all_rules();
    for (const char* policy : policies) {
        const auto slow = write_file(
            "slow", fmt::format("if [ -e {0}/again ]; then sleep 60; fi; exec haproxy -db -f {1}", scratch(),
                                write_file("haproxy.cfg", haproxy_config({.ports = {port}}))));
        Argv run{"run"};
        const auto options = how({"--policy", policy, "--", "sh", slow});
        run.insert(run.end(), options.begin(), options.end());
        Agent agent(run, by());
        write_file("again", "");
        Process asking(syngate({"restart", "--control", agent.control()}));
        ASSERT_TRUE(wait_until([&] { return knock(hosts.client, v4, 30ms) == Reply::silent; }));
        agent.process.signal(SIGTERM);
        ASSERT_TRUE(answered(hosts.client, v4, 10s));
        EXPECT_TRUE(agent.process.wait()) << "still there: " << agent.process.err();
        EXPECT_EQ(all_rules(), before) << policy;
        std::remove((scratch() + "/again").c_str());
    }
}

// A firewall that is loaded anew in a window takes our rules with it: the gate is open then, and says so.
TEST_P(Iptables, RulesThatAnotherRemovesOpenTheGate) {
    const Listener server(port);
    const auto before = all_rules();
    for (const char* without : {"", "xt_recent"}) {
        Closed agent(how({"--lease", "2s"}), by(without));
        expect_both(Reply::silent);
        for (const char* family : {"iptables", "ip6tables"}) {
            rule(family, {"-t", "mangle", "-F"});
            rule(family, {"-t", "mangle", "-X"});
        }
        expect_both(Reply::connected);
        agent.process.signal(SIGTERM);
        EXPECT_TRUE(agent.process.wait(20s)) << agent.process.err();
    }
    cli({"cleanup"});
    if (variant() == "legacy") {
        EXPECT_EQ(all_rules(), before);
    }
}

// The lock is one file for all network namespaces; /run is this sandbox's own.
TEST_P(Iptables, ABusyLockIsWaitedForAndThenNamed) {
    const Listener server(port);
    const auto before = all_rules();
    Closed agent(how({}), by());
    Fd lock(::open("/run/xtables.lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::flock(lock.get(), LOCK_EX | LOCK_NB), 0);
    if (variant() == "nft") { // which has no lock
        const Listener other(81);
        EXPECT_TRUE(cli({"exec", "--mode", "iptables", "--ports", "81", "--", "true"}, by()).ok());
        agent.end();
        EXPECT_EQ(all_rules(), before);
        return;
    }
    Process refused(syngate({"exec", "--mode", "iptables", "--ports", "81", "--", "true"}),
                    {.extra_env = by().extra_env});
    EXPECT_EQ(refused.wait(30s), (ExitStatus{4, 0})) << refused.err();
    EXPECT_TRUE(refused.err().contains("xtables lock")) << refused.err();
    // To open takes no lock.
    agent.process.signal(SIGTERM);
    const auto signalled_at = Clock::now();
    const auto when = answered(hosts.client, v4, 10s);
    ASSERT_TRUE(when);
    EXPECT_LE(to_us(*when - signalled_at), to_us(slack));
    lock.reset();
    EXPECT_TRUE(agent.process.wait(30s)) << agent.process.err();
    cli({"cleanup"}); // if the lock was held for too long
    EXPECT_EQ(all_rules(), before);
}

// Rules of filter judge a SYN after the gate, whether it was held, or passes by because the agent has died.
TEST_P(Iptables, TheAdministratorsRulesApplyToWhatWasHeld) {
    const Listener server(port);
    const Listener other(81);
    rule("iptables", {"-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP"});
    rule("iptables", {"-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW,ESTABLISHED", "-j", "ACCEPT"});
    rule("iptables", {"-P", "INPUT", "DROP"});
    const Target open{ClientHost::server_v4, 81};
    ASSERT_EQ(knock(hosts.client, v4), Reply::silent);
    ASSERT_EQ(knock(hosts.client, open), Reply::connected);
    {
        Closed agent({"--mode", "iptables", "--ports", "80,81"}, by());
        Reply dropped{};
        Reply held{};
        std::vector<Process> knocking;
        for (const char* to : {"80", "81"})
            knocking.emplace_back(Argv{"python3", "-c",
                                       "import socket, sys; s = socket.create_connection(('10.77.0.1', "
                                       "int(sys.argv[1])), timeout=0.9)",
                                       to},
                                  SpawnOptions{.where = &hosts.client});
        ASSERT_TRUE(wait_until([&] { return agent.ask("status")["gate"]["verdicts"]["parked"] == 2; }));
        agent.end();
        dropped = knocking[0].wait() == ExitStatus{0, 0} ? Reply::connected : Reply::silent;
        held = knocking[1].wait() == ExitStatus{0, 0} ? Reply::connected : Reply::silent;
        EXPECT_EQ(dropped, Reply::silent);
        EXPECT_EQ(held, Reply::connected) << knocking[1].err();
    }
    Closed agent({"--mode", "iptables", "--ports", "80,81"}, by());
    agent.kill();
    EXPECT_EQ(knock(hosts.client, v4), Reply::silent);
    EXPECT_EQ(knock(hosts.client, open), Reply::connected);
}

TEST_P(Iptables, AThousandPortsAndAllPortsCloseInOneStep) {
    std::string odd;
    for (int each = 1001; each < 3001; each += 2)
        odd += fmt::format("{}{}", odd.empty() ? "" : ",", each);
    const Listener first(1001);
    const Listener last(2999);
    const Listener between(1002);
    for (const char* without : {"", "xt_multiport"}) {
        Closed agent({"--mode", "iptables", "--ports", odd}, by(without));
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, 1001}), Reply::silent);
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v6, 2999}), Reply::silent);
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, 1002}), Reply::connected);
        agent.end();
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v6, 1001}), Reply::connected);
    }
    Closed agent({"--mode", "iptables", "--ports", "1-65535"}, by());
    EXPECT_EQ(knock(hosts.client, {ClientHost::server_v6, 1002}), Reply::silent);
    agent.end();
}

TEST_P(Iptables, WhatDoesNotFitIntoTheQueueIsDroppedAndCounted) {
    const Listener server(port);
    Closed agent(how({"--park-memory", "64k"}), by()); // room for the least number, 64
    for (int i = 0; i < 50; ++i) {
        knock(hosts.client, v4, 1ms);
        knock(hosts.client, v6, 1ms);
    }
    agent.end();
    EXPECT_TRUE(agent.process.err().contains("64 parked, 64 replayed, 36 dropped")) << agent.process.err();
}

TEST_P(Iptables, WhatIsMissingIsNamedAndTheNearestThingDone) {
    const Listener server(port);
    const auto before = all_rules();
    {
        Closed agent(how({"--policy", "hold"}), by("nfqueue"));
        expect_both(Reply::silent);
        agent.end();
        EXPECT_TRUE(agent.process.err().contains("policy hold acts as drop")) << agent.process.err();
        EXPECT_TRUE(agent.process.err().contains("nfqueue: switched off")) << agent.process.err();
        EXPECT_TRUE(agent.process.err().contains("2 dropped")) << agent.process.err();
    }
    {
        Closed agent(how({}), by("xt_recent"));
        expect_both(Reply::silent);
        agent.end();
        EXPECT_TRUE(agent.process.err().contains("xt_recent: switched off")) << agent.process.err();
        EXPECT_TRUE(agent.process.err().contains("2 replayed")) << agent.process.err();
    }
    {
        Closed agent(how({}), by("ip6tables"));
        EXPECT_EQ(knock(hosts.client, v4), Reply::silent);
        EXPECT_EQ(knock(hosts.client, v6), Reply::connected);
        agent.end();
        EXPECT_TRUE(agent.process.err().contains("no gate for IPv6: switched off")) << agent.process.err();
    }
    for (const char* without : {"xt_recent,xt_time", "iptables_nft,iptables_legacy"}) {
        const auto result = cli({"exec", "--mode", "iptables", "--ports", "80", "--", "true"}, by(without));
        EXPECT_EQ(result.status, (ExitStatus{3, 0})) << result.err;
        EXPECT_TRUE(result.err.contains("switched off by SYNGATE_NO_FEATURE")) << result.err;
    }
    EXPECT_EQ(all_rules(), before);
}

INSTANTIATE_TEST_SUITE_P(Variants, Iptables, testing::Values("nft", "legacy"), name_of);

} // namespace syngate::live::robust
