// SPDX-License-Identifier: GPL-2.0-or-later
// SYNs that iptables holds (NFQUEUE): they go on in their order, by one verdict for all of them.
#include "iptables/packet_queue.hpp"
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"

#include <atomic>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace {

std::atomic<std::size_t> sends = 0;

} // namespace

// In the C library's place, for the whole of this program: what the queue says to the kernel is counted.
extern "C" ssize_t send(int fd, const void* data, std::size_t size, int flags) {
    ++sends;
    return ::sendto(fd, data, size, flags, nullptr, 0);
}

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 80;
constexpr int clients = 50;

class IptablesQueue : public testing::TestWithParam<const char*> {
protected:
    // Of IPv4 and IPv6 in turn, in the order in which they left. Those of the clients' ports.
    std::vector<std::uint16_t> knock_often() {
        std::vector<std::uint16_t> ports;
        for (int i = 0; i < clients; ++i) {
            connecting.push_back(begin_to_connect(
                hosts.client, {i % 2 == 1 ? ClientHost::server_v6 : ClientHost::server_v4, port}));
            ports.push_back(port_of(connecting.back(), ::getsockname));
        }
        return ports;
    }
    [[nodiscard]] static std::vector<std::uint16_t> accepted_by(const Listener& server) {
        std::vector<std::uint16_t> ports;
        while (ports.size() < clients && server.has_pending(5s))
            ports.push_back(port_of(server.accept(), ::getpeername));
        return ports;
    }
    static std::uint16_t port_of(const Fd& fd, int (*ask)(int, sockaddr*, socklen_t*)) {
        sockaddr_in6 address{};
        socklen_t size = sizeof address;
        EXPECT_EQ(ask(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
        return ntohs(address.sin6_port); // IPv4 has it in the same place
    }
    static void by_both(const char* what, std::uint16_t queue) {
        for (const char* family : {"iptables", "ip6tables"})
            must_run({fmt::format("{}-{}", family, GetParam()), "-w", "-t", "mangle", what, "INPUT", "-p",
                      "tcp", "--dport", fmt::format("{}", port), "--syn", "-j", "NFQUEUE", "--queue-num",
                      fmt::format("{}", queue)});
    }

    const ClientHost hosts;
    std::vector<Fd> connecting;
};

} // namespace

TEST_P(IptablesQueue, WhatAWindowHeldGoesOnInItsOrder) {
    const Listener server(port);
    Closed agent({"--mode", "iptables", "--ports", "80", "--policy", "hold", "--lease", "20s"},
                 {.extra_env = {only_variant(GetParam())}});
    const auto sent = knock_often();
    EXPECT_FALSE(server.has_pending(0ms));
    EXPECT_TRUE(wait_until([&] { return agent.ask("status")["gate"]["verdicts"]["parked"] == clients; }));
    agent.end();
    EXPECT_EQ(accepted_by(server), sent) << agent.process.err();
}

// One message to the kernel, however many wait.
TEST_P(IptablesQueue, AllThatWaitHaveOneVerdict) {
    const Listener server(port);
    const auto queue = PacketQueue::open(0, 1 << 20);
    ASSERT_TRUE(queue) << queue.error().message;
    by_both("-A", (*queue)->number());
    const auto sent = knock_often();
    EXPECT_TRUE(wait_until([&] {
        (*queue)->take_note();
        return (*queue)->waiting() == clients;
    }));
    EXPECT_FALSE(server.has_pending(0ms));
    by_both("-D", (*queue)->number());
    const std::size_t before = sends;
    EXPECT_EQ((*queue)->judge(PacketQueue::Verdict::again), clients);
    EXPECT_EQ(sends, before + 1);
    EXPECT_EQ((*queue)->waiting(), 0U);
    EXPECT_EQ(accepted_by(server), sent);
}

INSTANTIATE_TEST_SUITE_P(Variants, IptablesQueue, testing::Values("nft", "legacy"),
                         [](const auto& of) { return std::string(of.param); });

} // namespace syngate::live::robust
