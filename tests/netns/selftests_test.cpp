// SPDX-License-Identifier: GPL-2.0-or-later
// Scenarios of the kernel's own selftests, from an operator's side: net/netfilter/nft_tproxy_tcp.sh and
// bpf/prog_tests/sk_assign.c. Those of bpf/prog_tests/sk_lookup.c are about one program (tests/prog, Steer)
// and about several in one namespace (Flip.AnotherProgram…, Intercepting.AnotherSkLookupProgram…). What
// nft_tproxy_tcp.sh does to connections that the router itself makes takes a rule for its output, which
// --intercept has none for: they go their normal way.
#include "netns/iptables.hpp"
#include "netns/proxy_scene.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>

namespace syngate::live {

namespace {

constexpr std::uint16_t listening = 1234, connected = 4321;

// Whether a datagram to that port of this namespace's own gets an answer other than "port unreachable".
bool is_received(std::uint16_t port) {
    const Fd sender(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in to{.sin_family = AF_INET,
                         .sin_port = htons(port),
                         .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
                         .sin_zero = {}};
    EXPECT_EQ(::connect(sender.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    EXPECT_EQ(::send(sender.get(), "x", 1, 0), 1);
    pollfd refused{sender.get(), 0, 0}; // POLLERR comes unasked
    return ::poll(&refused, 1, 1000) != 1;
}

class NftTproxyTcp : public testing::TestWithParam<const char*> {};

} // namespace

TEST_P(NftTproxyTcp, OneServerIsProxiedAndNoOther) {
    constexpr auto other_v4 = "10.88.0.3", other_v6 = "fd00:88::3"; // ns3 of the selftest
    const ProxyScene scene;
    must_run({"ip", "address", "add", fmt::format("{}/24", other_v4), "dev", "back1"},
             {.where = &scene.backend});
    must_run({"ip", "address", "add", fmt::format("{}/64", other_v6), "dev", "back1", "nodad"},
             {.where = &scene.backend});
    const StoppedAgent agent(
        by_way(GetParam(),
               {.server = haproxy_argv(ProxyScene::intercepting_config({listening})),
                .options = {"--intercept", fmt::format("{}:80={}", ProxyScene::backend_v4, listening),
                            "--intercept", fmt::format("[{}]:80={}", ProxyScene::backend_v6, listening)}}));
    const auto proxied = [](const char* address) { return fmt::format("{} 80 by {}", address, listening); };
    const Namespace &client = scene.hosts.client, &router = scene.hosts.server;
    EXPECT_EQ(http_get(client, {ProxyScene::backend_v4, 80}), proxied(ProxyScene::backend_v4));
    EXPECT_EQ(http_get(client, {ProxyScene::backend_v6, 80}), proxied(ProxyScene::backend_v6));
    EXPECT_EQ(http_get(client, {other_v4, 80}), ClientHost::client_v4);
    EXPECT_EQ(http_get(client, {other_v6, 80}), ClientHost::client_v6);
    for (const char* server : {ProxyScene::backend_v4, other_v4})
        EXPECT_EQ(http_get(router, {server, 80}), "10.88.0.1") << server;
    for (const char* server : {ProxyScene::backend_v6, other_v6})
        EXPECT_EQ(http_get(router, {server, 80}), "fd00:88::1") << server;
}

INSTANTIATE_TEST_SUITE_P(By, NftTproxyTcp, testing::Values("tcx", "tc", "xdp", "nft", "legacy"),
                         [](const auto& of) { return std::string(of.param); });

TEST(SkAssign, APortLeadsToTheListenerOfAnotherAndForTcpAlone) {
    const ClientHost hosts;
    const auto server = start_server(haproxy_argv(ProxyScene::intercepting_config({listening})), {listening});
    const robust::Target targets[] = {{"127.0.0.1", connected},
                                      {"::1", connected},
                                      {ClientHost::server_v4, connected},
                                      {ClientHost::server_v6, connected}};
    const auto from = [&](const robust::Target& to) -> const Namespace& {
        return &to < targets + 2 ? hosts.server : hosts.client;
    };
    for (const auto& to : targets)
        EXPECT_EQ(robust::knock(from(to), to), robust::Reply::refused) << to.address;
    ASSERT_TRUE(robust::cli({"flip", fmt::format("{}={}", connected, listening)}).ok());
    const Fd datagrams(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const sockaddr_in any{
        .sin_family = AF_INET, .sin_port = htons(listening), .sin_addr = {}, .sin_zero = {}};
    ASSERT_EQ(::bind(datagrams.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
    // The server sees where its client connected to.
    for (const auto& to : targets)
        EXPECT_EQ(http_get(from(to), to), fmt::format("{} {} by {}", to.address, connected, listening));
    EXPECT_TRUE(is_received(listening));
    EXPECT_FALSE(is_received(connected));
    EXPECT_TRUE(robust::cli({"flip", "--clear"}).ok());
}

} // namespace syngate::live
