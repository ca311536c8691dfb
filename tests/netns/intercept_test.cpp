// SPDX-License-Identifier: GPL-2.0-or-later
// Connections to foreign addresses that end at a listener of the router that they pass.
#include "netns/iptables.hpp"
#include "netns/proxy_scene.hpp"
#include "netns/robust_frames.hpp"
#include "steer/steer_maps.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;
using robust::Target;

constexpr std::uint16_t first = 8888;
constexpr std::uint16_t second = 8889;
const Target web_v4{ProxyScene::backend_v4, 80};
const Target web_v6{ProxyScene::backend_v6, 80};

std::string by(const Target& to, std::uint16_t listener) {
    return fmt::format("{} {} by {}", to.address, to.port, listener);
}

// A datagram to the very port reaches the backend.
bool udp_arrives(const ProxyScene& scene) {
    const Inside inside(scene.backend);
    const Fd receiver(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(80), .sin_addr = {}, .sin_zero = {}};
    EXPECT_EQ(::bind(receiver.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const Inside client(scene.hosts.client);
    const Fd sender(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ::inet_pton(AF_INET, ProxyScene::backend_v4, &address.sin_addr);
    EXPECT_EQ(::sendto(sender.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), sizeof address), 1);
    pollfd ready{receiver.get(), POLLIN, 0};
    return ::poll(&ready, 1, 3000) == 1;
}

class Intercepting : public testing::TestWithParam<const char*> {
protected:
    void start(const Argv& rules, const Argv& more = {}) {
        Argv options;
        for (const auto& rule : rules)
            options.insert(options.end(), {"--intercept", rule});
        options.insert(options.end(), more.begin(), more.end());
        agent.emplace(
            by_way(GetParam(), {.server = haproxy_argv(ProxyScene::intercepting_config({first, second})),
                                .options = options}));
    }
    // What iptables does not see, or not count, is 0 there.
    [[nodiscard]] static bool by_bpf() { return is_bpf(GetParam()); }
    auto get(const Target& to, std::uint16_t source_port = 0, Duration patience = 3s) const {
        return http_get(scene.hosts.client, to, source_port, patience);
    }
    // By iptables up to a second old.
    std::uint64_t verdict(const char* reason) const {
        return agent->status()["transparent"]["verdicts"].value(reason, std::uint64_t{0});
    }
    const ProxyScene scene;
    std::optional<StoppedAgent> agent;
};

} // namespace

TEST_P(Intercepting, TheListenerSeesTheOriginalDestination) {
    make_legacy_tables();
    const std::string before = network_state() + all_rules();
    start({"80=8888"});
    EXPECT_EQ(get(web_v4), by(web_v4, first));
    EXPECT_EQ(get(web_v6), by(web_v6, first));
    EXPECT_TRUE(wait_until([&] { return verdict("intercepted") == 2U && verdict("diverted") >= 4U; }))
        << agent->status()["transparent"];
    EXPECT_EQ(agent->stop(), (ExitStatus{0, 0})) << agent->log();
    EXPECT_EQ(network_state() + all_rules(), before);
    EXPECT_EQ(get(web_v4), ClientHost::client_v4) << "forwarded again";
}

TEST_P(Intercepting, TheLongestPrefixOfThePortWins) {
    start({"80=8888", "10.88.0.0/24:80=8889", "[fd00:88::2]:80=8889", "fd00:88::/64:80=8888"});
    EXPECT_EQ(get(web_v4), by(web_v4, second));
    EXPECT_EQ(get(web_v6), by(web_v6, second));
}

TEST_P(Intercepting, OtherPortsAddressesAndUdpAreForwarded) {
    start({"80=8888"});
    EXPECT_EQ(get({ProxyScene::backend_v4, ProxyScene::backend_port}), ClientHost::client_v4);
    EXPECT_EQ(get({ProxyScene::backend_v6, ProxyScene::backend_port}), ClientHost::client_v6);
    // The router's own addresses are none to intercept: nobody listens there.
    for (const char* own : {ClientHost::server_v4, ClientHost::server_v6, "10.88.0.1", "fd00:88::1"})
        EXPECT_EQ(robust::knock(scene.hosts.client, {own, 80}, 2s), robust::Reply::refused) << own;
    EXPECT_TRUE(udp_arrives(scene));
    EXPECT_EQ(verdict("not_tcp") > 0, by_bpf());
}

TEST_P(Intercepting, ConnectionsFromBeforeGoOnBeingForwarded) {
    const robust::Listener at_backend(scene.backend, 81);
    const Fd client = robust::connect_from(scene.hosts.client, {ProxyScene::backend_v4, 81});
    const Fd accepted = at_backend.accept();
    start({"81=8888"});
    char byte = 'x';
    ASSERT_EQ(::write(client.get(), &byte, 1), 1);
    pollfd ready{accepted.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 3000), 1);
    EXPECT_EQ(::read(accepted.get(), &byte, 1), 1);
    EXPECT_EQ(get({ProxyScene::backend_v4, 81}), by({ProxyScene::backend_v4, 81}, first));
}

TEST_P(Intercepting, WithoutATransparentListenerItIsForwarded) {
    // Nobody listens on 9999; on 9998 somebody does who could not answer.
    const robust::Listener ordinary(9998);
    start({"80=9999", "9000=9998"});
    EXPECT_EQ(get(web_v4), ClientHost::client_v4);
    EXPECT_EQ(get(web_v6), ClientHost::client_v6);
    EXPECT_EQ(get({ProxyScene::backend_v4, ProxyScene::backend_port}), ClientHost::client_v4);
    EXPECT_EQ(verdict("intercept_no_listener"), by_bpf() ? 3U : 0U);
    EXPECT_EQ(verdict("intercepted"), 0U);
}

// The closed gate lets it pass, too, while it holds what has a listener: that one is being replaced.
TEST_P(Intercepting, WithoutATransparentListenerItPassesAClosedGate) {
    const robust::Listener ordinary(9998);
    start({"80=9999", "9000=9998", "81=8888"},
          {"--ports", "8888,9998,9999", "--policy", "hold", "--lease", "20s"});
    ASSERT_EQ(agent->ask("close")["exit"], 0);
    EXPECT_EQ(get(web_v4), ClientHost::client_v4);
    EXPECT_EQ(get(web_v6), ClientHost::client_v6);
    EXPECT_EQ(get({ProxyScene::backend_v4, ProxyScene::backend_port}), ClientHost::client_v4);
    EXPECT_EQ(get({ProxyScene::backend_v6, ProxyScene::backend_port}), ClientHost::client_v6);
    EXPECT_EQ(robust::knock(scene.hosts.client, {ProxyScene::backend_v4, 81}, 200ms), robust::Reply::silent);
    EXPECT_EQ(robust::knock(scene.hosts.client, {ProxyScene::backend_v6, 81}, 200ms), robust::Reply::silent);
    EXPECT_EQ(robust::knock(scene.hosts.client, {ClientHost::server_v4, 9998}, 200ms), robust::Reply::silent);
    const auto opened = agent->ask("open");
    EXPECT_EQ(opened["parked"], 3) << opened;
    EXPECT_EQ(opened["replayed"], 3) << opened;
}

// It is the longest prefix of a connection, whether somebody listens or not.
TEST_P(Intercepting, ALongerPrefixWithoutAListenerHidesAShorterOne) {
    start({"80=8888", "10.88.0.2:80=9999"});
    EXPECT_EQ(get(web_v4), ClientHost::client_v4);
    EXPECT_EQ(get(web_v6), by(web_v6, first));
}

// Of two sockets that share the port that clients connect to, each gets its part.
TEST_P(Intercepting, ToItsOwnPortItIsSpreadOverTheListeners) {
    const auto transparent_listener = [] {
        Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
        EXPECT_EQ(::setsockopt(fd.get(), IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on), 0);
        const sockaddr_in any{.sin_family = AF_INET, .sin_port = htons(7777), .sin_addr = {}, .sin_zero = {}};
        EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
        EXPECT_EQ(::listen(fd.get(), 64), 0);
        return fd;
    };
    const Fd one = transparent_listener(), other = transparent_listener();
    start({"7777=7777"});
    for (int i = 0; i < 40; ++i)
        EXPECT_EQ(robust::knock(scene.hosts.client, {ProxyScene::backend_v4, 7777}, 3s),
                  robust::Reply::connected);
    for (const Fd* each : {&one, &other}) {
        pollfd waiting{each->get(), POLLIN, 0};
        EXPECT_EQ(::poll(&waiting, 1, 3000), 1);
    }
}

// Whoever would get a connection to the listener's port gets it.
TEST_P(Intercepting, ItFollowsAFlip) {
    if (!by_bpf())
        return; // a flip is for this host's own addresses there
    start({"80=8888"});
    const auto control = agent->status()["agent"]["control"].get<std::string>();
    ASSERT_TRUE(robust::cli({"flip", "8888=8889", "--control", control}).ok());
    EXPECT_EQ(get(web_v4), by(web_v4, second));
    EXPECT_EQ(get(web_v6), by(web_v6, second));
    ASSERT_TRUE(robust::cli({"flip", "--clear", "--control", control}).ok());
    EXPECT_EQ(get(web_v4), by(web_v4, first));
}

TEST_P(Intercepting, AnotherSkLookupProgramOfTheNamespaceIsAskedToo) {
    if (!by_bpf())
        return;
    const auto maps = *SteerMaps::load(7);
    ListenAddress elsewhere{.ipv6 = false, .address = {}, .port = 4444};
    ASSERT_TRUE(
        maps->set_rule(1, elsewhere, {.first_slot = 0, .sockets = 0, .steered = 0, .no_listener = 0}));
    maps->activate(1);
    const auto before_ours = maps->attach();
    ASSERT_TRUE(before_ours) << before_ours.error().message;
    start({"80=8888"});
    EXPECT_EQ(get(web_v4), by(web_v4, first));
    EXPECT_EQ(get(web_v6), by(web_v6, first));
    EXPECT_EQ(agent->ask("restart")["exit"], 0);
    EXPECT_EQ(get(web_v4), by(web_v4, first));
    EXPECT_GT(maps->verdicts().no_rule, 0U);
}

TEST_P(Intercepting, StatusAndPinsShowTheRules) {
    start({"80=8888", "10.88.0.0/24:81=8889"});
    const auto status = agent->status();
    EXPECT_EQ(status["transparent"]["intercepts"], (nlohmann::json{"80=8888", "10.88.0.0/24:81=8889"}));
    if (!by_bpf())
        return;
    const std::string pins = status["gate"]["pins"];
    const auto rules = must_run({"bpftool", "map", "dump", "pinned", pins + "/intercepts"});
    for (const char* text :
         {"\"port\": 80,", "\"listen_port\": 8888", "\"port\": 81,", "\"listen_port\": 8889"})
        EXPECT_NE(rules.find(text), rules.npos) << text << rules;
    ASSERT_EQ(agent->ask("close")["exit"], 0);
    const auto listeners = must_run({"bpftool", "map", "dump", "pinned", pins + "/staged_listeners"});
    EXPECT_NE(listeners.find("\"port\": 8888"), listeners.npos) << listeners;
    EXPECT_EQ(agent->ask("open")["exit"], 0);
}

// At once, and not refused by a host on which nobody listens: filters of TC outlive the agent.
TEST_P(Intercepting, OfAKilledAgentIsForwarded) {
    if (!by_bpf())
        return; // IptablesIntercept.EndsByItselfAfterSigkillAndIsSwept
    Argv argv{"run", "--hook", GetParam(), "--intercept", "80=8888", "--"};
    for (const auto& word : haproxy_argv(ProxyScene::intercepting_config({first, second})))
        argv.push_back(word);
    robust::Agent killed(argv);
    ASSERT_TRUE(wait_until([&] { return get(web_v4) == by(web_v4, first); }));
    EXPECT_EQ(get(web_v6), by(web_v6, first));
    killed.kill();
    EXPECT_EQ(get(web_v4), ClientHost::client_v4);
    EXPECT_EQ(get(web_v6), ClientHost::client_v6);
    EXPECT_TRUE(robust::cli({"cleanup"}).ok());
}

// The server closes first, so the old connection waits in TIME_WAIT at the router.
TEST_P(Intercepting, AClientsPortIsReusedWithinTimeWait) {
    start({"80=8888"});
    for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(get(web_v4, 40000, 900ms), by(web_v4, first)) << i;
        EXPECT_EQ(get(web_v6, 40000, 900ms), by(web_v6, first)) << i;
        const auto waiting = must_run({"ss", "-Htan", "state", "time-wait"});
        EXPECT_NE(waiting.find("10.88.0.2:80 "), waiting.npos) << waiting;
        EXPECT_NE(waiting.find("[fd00:88::2]:80 "), waiting.npos) << waiting;
    }
    EXPECT_TRUE(wait_until([&] { return verdict("intercepted") >= 40U; }));
}

TEST_P(Intercepting, AnAnswerToASynCookieArrives) {
    set_sysctl("net.ipv4.tcp_syncookies", "2"); // always
    start({"80=8888"});
    if (by_bpf()) {
        EXPECT_EQ(get(web_v4), by(web_v4, first));
        EXPECT_EQ(get(web_v6), by(web_v6, first));
        EXPECT_EQ(verdict("intercepted_cookie"), 2U);
    } else { // docs/MODES.md: nothing tells it from the data of a connection that was there before the rule
        EXPECT_EQ(get(web_v4), std::nullopt);
        EXPECT_EQ(get(web_v6), std::nullopt);
    }
    set_sysctl("net.ipv4.tcp_syncookies", "1");
}

TEST_P(Intercepting, AClosedGateHoldsItAsALocalOne) {
    start({"80=8888"}, {"--policy", "hold", "--lease", "20s"});
    ASSERT_EQ(agent->ask("close")["exit"], 0);
    EXPECT_EQ(robust::knock(scene.hosts.client, web_v4, 200ms), robust::Reply::silent);
    EXPECT_EQ(robust::knock(scene.hosts.client, web_v6, 200ms), robust::Reply::silent);
    EXPECT_EQ(get({ProxyScene::backend_v4, ProxyScene::backend_port}), ClientHost::client_v4);
    const auto opened = agent->ask("open");
    EXPECT_EQ(opened["parked"], 2) << opened;
    EXPECT_EQ(opened["replayed"], 2) << opened;
    EXPECT_EQ(get(web_v4), by(web_v4, first));
}

TEST_P(Intercepting, ReloadsUnderLoadLoseNothing) {
    start({"80=8888"});
    LoadRun load(scene.hosts.client, {.to = {"10.88.0.2:80", "[fd00:88::2]:80"}, .rate = 400});
    for (int i = 0; i < 4; ++i)
        EXPECT_EQ(agent->ask("reload")["exit"], 0);
    EXPECT_EQ(agent->ask("restart")["exit"], 0);
    const auto result = load.finish();
    EXPECT_EQ(result.failed(), 0U) << result.report.dump(2) << agent->log();
    EXPECT_GT(result.outcome("ok"), 20U);
    EXPECT_EQ(verdict("intercept_no_listener"), 0U);
}

INSTANTIATE_TEST_SUITE_P(Hooks, Intercepting, testing::Values("tcx", "tc", "xdp", "nft", "legacy"),
                         [](const auto& of) { return std::string(of.param); });

} // namespace syngate::live
