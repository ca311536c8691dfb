// SPDX-License-Identifier: GPL-2.0-or-later
// Connections that iptables has led to another port: they live through every change of what is flipped, where
// nobody else needs conntrack, arrive whatever interface they come by, and are counted once.
#include "netns/iptables.hpp"
#include "netns/proxy_scene.hpp"
#include "netns/robust_agent.hpp"

#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <thread>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t first_target = 8081;
constexpr std::uint16_t second_target = 8082;

std::size_t count(const std::string& text, const std::string& what) {
    std::size_t found = 0;
    for (auto at = text.find(what); at != text.npos; at = text.find(what, at + 1))
        ++found;
    return found;
}

bool passes(const Fd& from, const Fd& to) {
    char byte = 'x';
    pollfd arrives{to.get(), POLLIN, 0}; // the kernel may be busy with others' packets
    return ::send(from.get(), &byte, 1, MSG_NOSIGNAL) == 1 && ::poll(&arrives, 1, 10'000) == 1 &&
           ::recv(to.get(), &byte, 1, 0) == 1;
}

// A connection whose ends exchange data all the time, from another thread.
class Lively {
public:
    Lively(const Namespace& from, const Target& to, const Listener& at) : client_(connect_from(from, to)) {
        EXPECT_TRUE(at.has_pending(5s));
        accepted_ = at.accept();
        thread_ = std::jthread([this](const std::stop_token& stop) {
            while (!stop.stop_requested() && lives_) {
                lives_ = passes(client_, accepted_) && passes(accepted_, client_);
                ++exchanges_;
            }
        });
    }
    // Some more exchanges, begun after this was asked.
    bool goes_on() {
        const auto until = exchanges_ + 3;
        return wait_until([&] { return !lives_ || exchanges_ >= until; }) && lives_;
    }
    void end() {
        thread_.request_stop();
        thread_.join();
        client_.reset();
        accepted_.reset();
    }

private:
    Fd client_, accepted_;
    std::atomic<bool> lives_ = true;
    std::atomic<std::uint64_t> exchanges_ = 0;
    std::jthread thread_;
};

class IptablesLed : public testing::TestWithParam<const char*> {
protected:
    IptablesLed() {
        make_legacy_tables();
        before = all_rules();
    }
    [[nodiscard]] static SpawnOptions by(const std::string& without = "") {
        return {.extra_env = {only_variant(GetParam(), without)}};
    }
    // With a server that nobody asks.
    static Argv idle(const Argv& more = {}, const std::string& lease = "200ms") {
        Argv options{"--mode", "iptables", "--lease", lease};
        options.insert(options.end(), more.begin(), more.end());
        return running(options, haproxy({.ports = {9000}}));
    }
    static void flip(const Agent& agent, const Argv& what) {
        const auto answer = agent.ask("flip", what);
        EXPECT_EQ(answer["exit"], 0) << answer;
    }
    static std::uint64_t steered(const Agent& agent) {
        return agent.ask("status")["steering"]["verdicts"]["steered"];
    }
    static void by_both(const Argv& rule) {
        for (const std::string family : {"iptables", "ip6tables"}) {
            Argv argv{fmt::format("{}-{}", family, GetParam()), "-w"};
            argv.insert(argv.end(), rule.begin(), rule.end());
            must_run(argv);
        }
    }

    std::string before;
};

std::string variant_of(const testing::TestParamInfo<const char*>& info) {
    return info.param;
}

} // namespace

TEST_P(IptablesLed, GoesOnThroughEveryChange) {
    const ClientHost hosts;
    {
        const Agent agent(idle(), by());
        auto first = std::make_optional<Listener>(first_target);
        const Listener second(second_target);
        flip(agent, {"8080=8081"});
        std::vector<std::unique_ptr<Lively>> led;
        for (const char* address : {ClientHost::server_v4, ClientHost::server_v6}) {
            led.push_back(std::make_unique<Lively>(hosts.client, Target{address, port}, *first));
            led.push_back(std::make_unique<Lively>(hosts.server, Target{address, port}, *first));
        }
        const auto expect_all = [&](const char* after) {
            for (const auto& each : led)
                EXPECT_TRUE(each->goes_on()) << after;
        };
        flip(agent, {"8080=8082"});
        expect_all("led elsewhere");
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::connected);
        EXPECT_TRUE(second.has_pending(5s));
        flip(agent, {"--clear"});
        expect_all("cleared");
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::refused);
        flip(agent, {"8080=8081"});
        expect_all("begun anew");
        first.reset(); // what it has accepted lives on
        EXPECT_TRUE(wait_until([&] {
            return knock(hosts.client, {ClientHost::server_v6, port}) == Reply::refused;
        }));
        expect_all("target closed");
        flip(agent, {"8080=8082"});
        expect_all("led elsewhere again");
        // The rule that is kept for them goes with the last of them.
        EXPECT_EQ(count(all_rules(), "--to-destination :8081"), 2U) << all_rules();
        for (const auto& each : led)
            each->end();
        EXPECT_TRUE(wait_until([&] { return count(all_rules(), "--to-destination :8081") == 0; }, 40s))
            << all_rules();
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::connected);
    }
    EXPECT_TRUE(wait_until([&] { return cli({"cleanup"}, by()).ok() && all_rules() == before; }))
        << all_rules();
}

// Its rules cannot go then (legacy has a lock), but they have no effect; an agent that ends waits for the
// lock.
TEST_P(IptablesLed, WhatIsClearedLeadsNowhereThoughTheLockIsBusy) {
    const ClientHost hosts;
    const Listener target(first_target);
    Fd lock(::open("/run/xtables.lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    for (const bool by_its_end : {false, true}) {
        Agent agent(idle({}, "20s"), by());
        flip(agent, {"8080=8081"});
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::connected);
        ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
        if (by_its_end)
            agent.process.signal(SIGTERM);
        else
            flip(agent, {"--clear"});
        for (const char* address : {ClientHost::server_v4, ClientHost::server_v6})
            EXPECT_TRUE(wait_until([&] {
                return knock(hosts.client, {address, port}) == Reply::refused;
            })) << address;
        ASSERT_EQ(::flock(lock.get(), LOCK_UN), 0);
        if (by_its_end) {
            EXPECT_TRUE(agent.process.wait(20s)) << agent.process.err();
        }
        EXPECT_TRUE(wait_until([&] { return count(all_rules(), "--to-destination :8081") == 0; }, 20s))
            << all_rules() << agent.process.err();
    }
    EXPECT_TRUE(wait_until([&] { return cli({"cleanup"}, by()).ok() && all_rules() == before; }))
        << all_rules();
}

// As a host whose service has an address on lo, and whose interfaces have none of their own.
TEST_P(IptablesLed, ArrivesByAnInterfaceWithoutAnAddressAndKeepsIts) {
    const ClientHost hosts;
    constexpr auto on_lo_v4 = "10.99.0.1", on_lo_v6 = "fd00:99::1";
    must_run({"ip", "address", "add", fmt::format("{}/32", on_lo_v4), "dev", "lo"});
    must_run({"ip", "address", "add", fmt::format("{}/128", on_lo_v6), "dev", "lo"});
    {
        const Inside inside(hosts.client);
        must_run({"ip", "route", "add", on_lo_v4, "dev", ClientHost::client_device});
        must_run({"ip", "route", "add", on_lo_v6, "via", ClientHost::server_v6});
    }
    must_run({"ip", "-4", "address", "flush", "dev", ClientHost::server_device});
    must_run(
        {"ip", "route", "add", ClientHost::client_v4, "dev", ClientHost::server_device, "src", on_lo_v4});
    {
        const Agent agent(idle(), by());
        const Listener target(first_target);
        flip(agent, {"8080=8081"});
        for (const char* address : {on_lo_v4, on_lo_v6})
            for (const Namespace* from : {&hosts.client, &hosts.server}) {
                Reply reply = knock(*from, {address, port}, 5s);
                EXPECT_EQ(reply, Reply::connected) << address;
                if (reply != Reply::connected)
                    continue;
                ASSERT_TRUE(target.has_pending(5s));
                const Fd accepted = target.accept();
                sockaddr_in6 own{};
                socklen_t size = sizeof own;
                ::getsockname(accepted.get(), reinterpret_cast<sockaddr*>(&own), &size);
                std::array<char, INET6_ADDRSTRLEN> text{};
                ::inet_ntop(AF_INET6, &own.sin6_addr, text.data(), text.size());
                EXPECT_TRUE(std::string(text.data()).ends_with(address)) << text.data();
            }
    }
    must_run({"ip", "address", "del", fmt::format("{}/32", on_lo_v4), "dev", "lo"});
    must_run({"ip", "address", "del", fmt::format("{}/128", on_lo_v6), "dev", "lo"});
}

TEST_P(IptablesLed, CountsNeverGoBackNorDouble) {
    const ClientHost hosts;
    for (const char* without : {"", "xt_recent"}) {
        const Agent agent(idle(), by(without));
        const Listener first(first_target), second(second_target);
        std::vector<Fd> led;
        std::uint64_t seen = 0;
        // By xt_time the rules are replaced with each renewal, five times a second here: what is counted in
        // that instant is lost.
        const bool exact = *without == 0;
        const auto lead = [&](std::uint64_t expected) {
            led.push_back(connect_from(hosts.client, {ClientHost::server_v4, port}));
            EXPECT_EQ(wait_until(
                          [&] {
                              const auto now = steered(agent);
                              EXPECT_GE(now, seen);
                              EXPECT_LE(now, expected);
                              return (seen = now) == expected;
                          },
                          exact ? 10s : 1500ms) ||
                          !exact,
                      true)
                << seen << " are not " << expected;
        };
        flip(agent, {"8080=8081"});
        lead(1);
        flip(agent, {"8080=8082"});
        lead(2);
        by_both({"-t", "nat", "-Z"});
        EXPECT_FALSE(wait_until([&] { return steered(agent) < seen; }, 2s));
        lead(3);
        flip(agent, {"--clear"});
        flip(agent, {"8080=8081"});
        lead(4);
        by_both({"-t", "nat", "-F", "OUTPUT"});
        EXPECT_TRUE(wait_until([&] { return count(all_rules(), "-A OUTPUT -p tcp") == 2; })) << all_rules();
        lead(5);
        flip(agent, {"--clear"});
        EXPECT_EQ(steered(agent), seen);
    }
    EXPECT_TRUE(wait_until([&] { return cli({"cleanup"}, by()).ok() && all_rules() == before; }));
}

// The firewall of somebody who flushes the chains of the kernel's hooks only, or ours.
TEST_P(IptablesLed, WhatIsFlushedIsPutBackOnce) {
    const ProxyScene scene;
    const auto listening = start_server(haproxy_argv(ProxyScene::intercepting_config({8888})), {8888});
    for (const char* without : {"", "xt_recent"}) {
        Agent agent(idle({"--intercept", "80=8888"}), by(without));
        const Listener target(first_target);
        flip(agent, {"8080=8081"});
        const auto with_it = all_rules();
        const auto chain = fmt::format("SYNGATE-{}", with_it.substr(with_it.find(":SYNGATE-") + 9, 16));
        for (const auto& [table, flushed] : {std::pair<std::string, std::string>{"nat", "PREROUTING"},
                                             {"mangle", "PREROUTING"},
                                             {"mangle", chain + "-d"},
                                             {"nat", chain + "-n"}}) {
            by_both({"-t", table, "-F", flushed});
            EXPECT_TRUE(wait_until([&] { return all_rules() == with_it || *without != 0; })) << all_rules();
            EXPECT_TRUE(wait_until([&] {
                return count(all_rules(), "-j SYNGATE-") == count(with_it, "-j SYNGATE-");
            })) << all_rules();
            for (const char* address : {ProxyScene::backend_v4, ProxyScene::backend_v6})
                EXPECT_TRUE(wait_until([&] {
                    return http_get(scene.hosts.client, {address, 80}, 0, 1s) ==
                           fmt::format("{} 80 by 8888", address);
                })) << table
                    << flushed;
            for (const char* address : {ClientHost::server_v4, ClientHost::server_v6})
                EXPECT_TRUE(wait_until([&] {
                    return knock(scene.hosts.client, {address, port}) == Reply::connected;
                })) << table
                    << flushed;
        }
        // Once for each table that was flushed, or for each family of it.
        const auto said = [&] { return count(agent.process.err(), "were taken away or changed, and are"); };
        EXPECT_TRUE(wait_until([&] { return said() >= 4; })) << agent.process.err();
        EXPECT_LE(said(), 8U) << agent.process.err();
        agent.process.signal(SIGTERM);
        EXPECT_TRUE(agent.process.wait());
    }
    EXPECT_EQ(all_rules(), before);
}

// What the nft variant makes to put rules back is noted then, and goes with them.
TEST_P(IptablesLed, WhatIsMadeToPutRulesBackGoes) {
    if (GetParam() == std::string("legacy"))
        return; // its tables stay
    const ClientHost hosts;
    by_both({"-t", "nat", "-A", "PREROUTING", "-p", "udp", "-j", "ACCEPT"});
    by_both({"-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT"});
    {
        Agent agent(idle(), by());
        const Listener target(first_target);
        flip(agent, {"8080=8081"});
        must_run({"nft", "flush", "ruleset"});
        EXPECT_TRUE(wait_until([&] {
            return knock(hosts.client, {ClientHost::server_v6, port}) == Reply::connected;
        }));
        agent.process.signal(SIGTERM);
        EXPECT_TRUE(agent.process.wait());
    }
    EXPECT_EQ(must_run({"nft", "list", "ruleset"}), "");
}

// Somebody else's DNAT between the same ports to another host is no connection of ours.
TEST_P(IptablesLed, ForwardedConnectionsKeepNothing) {
    const ProxyScene scene;
    by_both({"-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "8080", "-m", "addrtype", "!",
             "--dst-type", "LOCAL", "-j", "DNAT", "--to-destination", ":8081"});
    const auto with_theirs = all_rules();
    const Listener at_backend(scene.backend, first_target);
    Lively theirs(scene.hosts.client, {ProxyScene::backend_v4, port}, at_backend);
    {
        const Agent agent(idle(), by());
        const Listener target(first_target);
        flip(agent, {"8080=8081"});
        flip(agent, {"--clear"});
        EXPECT_EQ(count(all_rules(), ":SYNGATE-"), count(with_theirs, ":SYNGATE-")) << all_rules();
    }
    EXPECT_TRUE(theirs.goes_on());
    theirs.end();
    by_both({"-t", "nat", "-F", "PREROUTING"});
}

// The loop has others to serve while somebody holds the lock.
TEST_P(IptablesLed, ALockThatIsHeldDoesNotKeepTheAgentFromAnswering) {
    if (GetParam() == std::string("nft"))
        return; // it has no lock
    const ClientHost hosts;
    const Agent agent(idle({}, "2s"), by());
    const Listener target(first_target);
    flip(agent, {"8080=8081"});
    Fd lock(::open("/run/xtables.lock", O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    by_both({"-t", "nat", "-F", "PREROUTING"});
    ASSERT_EQ(::flock(lock.get(), LOCK_EX), 0);
    Duration longest{};
    EXPECT_TRUE(wait_until(
        [&] {
            const auto asked_at = Clock::now();
            EXPECT_EQ(agent.ask("status")["exit"], 0);
            longest = std::max<Duration>(longest, Clock::now() - asked_at);
            return agent.process.err().contains("tried again every ");
        },
        20s))
        << agent.process.err();
    EXPECT_LT(to_us(longest), to_us(4s));
    lock.reset();
    EXPECT_TRUE(wait_until(
        [&] {
            return knock(hosts.client, {ClientHost::server_v4, port}) == Reply::connected;
        },
        20s));
}

// Its port is 80 on the way, but nobody's on this host.
TEST_P(IptablesLed, AnothersInterceptionPassesAClosedGateOfThatPort) {
    const ProxyScene scene;
    const Agent intercepting(running({"--mode", "iptables", "--intercept", "80=8888", "--ports", "8888"},
                                     haproxy_argv(ProxyScene::intercepting_config({8888}))),
                             by());
    const auto arrives = [&](const char* address) {
        return http_get(scene.hosts.client, {address, 80}) == fmt::format("{} 80 by 8888", address);
    };
    ASSERT_TRUE(wait_until([&] { return arrives(ProxyScene::backend_v6); }));
    const Listener own(80);
    Closed gate({"--mode", "iptables", "--ports", "80"}, by());
    EXPECT_EQ(knock(scene.hosts.client, {ClientHost::server_v4, 80}), Reply::silent);
    EXPECT_TRUE(arrives(ProxyScene::backend_v4));
    EXPECT_TRUE(arrives(ProxyScene::backend_v6));
    gate.end();
}

// Where marked packets of IPv6 cannot be routed to this host, IPv4 is intercepted all the same.
TEST_P(IptablesLed, WithoutIpv6OnLoIpv6IsForwarded) {
    const ProxyScene scene;
    set_sysctl("net.ipv6.conf.lo.disable_ipv6", "1");
    {
        const Agent agent(running({"--mode", "iptables", "--intercept", "80=8888"},
                                  haproxy_argv(ProxyScene::intercepting_config({8888}))),
                          by());
        EXPECT_TRUE(wait_until([&] {
            return http_get(scene.hosts.client, {ProxyScene::backend_v4, 80}) == "10.88.0.2 80 by 8888";
        }));
        EXPECT_EQ(http_get(scene.hosts.client, {ProxyScene::backend_v6, 80}), ClientHost::client_v6);
    }
    set_sysctl("net.ipv6.conf.lo.disable_ipv6", "0");
    EXPECT_TRUE(wait_until([&] {
        return run({"ip", "-6", "address", "show", "dev", "lo"}).out.contains("::1/128");
    }));
}

TEST_P(IptablesLed, WithoutTheCapabilityItIsNamed) {
    for (const Argv& how : {Argv{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"},
                            Argv{"setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all",
                                 "--inh-caps", "-all"}}) {
        std::filesystem::remove_all("/run/syngate"); // of an agent before this one, which had another user
        Argv argv = how;
        const auto command = syngate({"exec", "--mode", "iptables", "--ports", "80", "--", "true"});
        argv.insert(argv.end(), command.begin(), command.end());
        const auto refused = run(argv, by());
        EXPECT_EQ(refused.status, (ExitStatus{3, 0})) << refused.err;
        EXPECT_TRUE(refused.err.contains("CAP_NET_ADMIN")) << refused.err;
    }
}

INSTANTIATE_TEST_SUITE_P(Variants, IptablesLed, testing::Values("nft", "legacy"), variant_of);

} // namespace syngate::live::robust
