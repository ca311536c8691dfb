// SPDX-License-Identifier: GPL-2.0-or-later
// A server that queues few connections: what was held comes no faster than it accepts.
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"
#include "netns/sandbox.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 80;
constexpr std::size_t clients = 40;
constexpr int backlog = 4;

// Needs a millisecond for each connection.
class SlowServer {
public:
    SlowServer() {
        const int on = 1, off = 0;
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        ::setsockopt(socket_.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        any.sin6_port = htons(port);
        EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
        EXPECT_EQ(::listen(socket_.get(), backlog), 0);
        thread_ = std::jthread([this](const std::stop_token& stop) {
            pollfd ready{socket_.get(), POLLIN, 0};
            while (!stop.stop_requested())
                if (::poll(&ready, 1, 10) == 1) {
                    std::this_thread::sleep_for(1ms);
                    const Fd accepted(::accept(socket_.get(), nullptr, nullptr));
                    ++accepted_;
                }
        });
    }
    [[nodiscard]] std::size_t accepted() const { return accepted_; }

private:
    Fd socket_{::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    std::atomic<std::size_t> accepted_ = 0;
    std::jthread thread_;
};

// One SYN has left when this returns.
Fd begin_to_connect(const Namespace& from, bool ipv6) {
    const Inside inside(from);
    Fd fd(::socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in four{};
    sockaddr_in6 six{};
    four.sin_family = AF_INET;
    six.sin6_family = AF_INET6;
    four.sin_port = six.sin6_port = htons(port);
    ::inet_pton(AF_INET, ClientHost::server_v4, &four.sin_addr);
    ::inet_pton(AF_INET6, ClientHost::server_v6, &six.sin6_addr);
    EXPECT_EQ(ipv6 ? ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&six), sizeof six)
                   : ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&four), sizeof four),
              -1);
    return fd;
}

std::string overflows() {
    return run({"nstat", "-asz", "TcpExtListenOverflows", "TcpExtListenDrops"}).out;
}

struct ShortQueue : testing::TestWithParam<const char*> {};

} // namespace

TEST_P(ShortQueue, LosesNobodyWhoWasHeld) {
    const ClientHost hosts;
    const SlowServer server;
    const std::string way = GetParam();
    Argv arguments{"--ports", "80", "--policy", "hold", "--lease", "20s"};
    SpawnOptions options;
    if (way == "nft" || way == "legacy") {
        arguments.insert(arguments.end(), {"--mode", "iptables"});
        options.extra_env.push_back(only_variant(way));
    } else {
        arguments.insert(arguments.end(), {"--mode", "bpf", "--hook", way});
    }
    Closed agent(arguments, options);
    std::vector<Fd> connecting;
    for (std::size_t i = 0; i < clients; ++i)
        connecting.push_back(begin_to_connect(hosts.client, i % 2 == 1));
    ASSERT_TRUE(wait_until([&] { return agent.ask("status")["gate"]["verdicts"]["parked"] == clients; }));
    const std::string before = overflows();
    agent.end();
    EXPECT_TRUE(wait_until([&] { return server.accepted() == clients; })) << server.accepted();
    EXPECT_EQ(overflows(), before);
}

INSTANTIATE_TEST_SUITE_P(Ways, ShortQueue, testing::Values("tcx", "xdp", "nft", "legacy"),
                         [](const auto& of) { return std::string(of.param); });

} // namespace syngate::live::robust
