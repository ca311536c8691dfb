// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/sock_diag.hpp"
#include "net/syn_recv_age.hpp"
#include "unit/net_namespace.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;
using test::connect_to;
using test::in_namespace;
using test::listen_on;

std::unique_ptr<Sockets> opened() {
    auto sockets = open_sock_diag();
    EXPECT_TRUE(sockets) << sockets.error().message;
    return std::move(*sockets);
}

const Listener* find(const std::vector<Listener>& listeners, bool ipv6, std::uint16_t port) {
    const auto found =
        std::ranges::find_if(listeners, [&](const Listener& l) { return l.ipv6 == ipv6 && l.port == port; });
    return found == listeners.end() ? nullptr : &*found;
}

void defer_accept(const Fd& listener) {
    const int seconds = 60;
    ASSERT_EQ(::setsockopt(listener.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds), 0);
}

TEST(SockDiag, ListenersOfBothFamiliesAreIdentified) {
    in_namespace([] {
        const Fd v4 = listen_on(AF_INET, 80, 7);
        const Fd v6 = listen_on(AF_INET6, 443, 9, true);
        const Fd connection = connect_to(AF_INET, 80); // is no listener
        const auto sockets = opened();
        const auto listeners = sockets->listeners();
        ASSERT_TRUE(listeners) << listeners.error().message;
        EXPECT_EQ(listeners->size(), 2U);
        for (const auto& [fd, ipv6, port, backlog] :
             {std::tuple{v4.get(), false, 80, 7U}, std::tuple{v6.get(), true, 443, 9U}}) {
            const Listener* listener = find(*listeners, ipv6, static_cast<std::uint16_t>(port));
            ASSERT_TRUE(listener) << port;
            struct stat file {};
            ASSERT_EQ(::fstat(fd, &file), 0);
            EXPECT_EQ(listener->inode, file.st_ino);
            std::uint64_t cookie = 0;
            socklen_t length = sizeof cookie;
            ASSERT_EQ(::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length), 0);
            EXPECT_EQ(listener->cookie, cookie);
            EXPECT_EQ(listener->backlog, backlog);
            EXPECT_EQ(listener->uid, ::geteuid());
        }
        const std::array<std::uint8_t, 16> loopback{127, 0, 0, 1};
        EXPECT_EQ(find(*listeners, false, 80)->address, loopback);
        EXPECT_EQ((find(*listeners, true, 443)->address), (std::array<std::uint8_t, 16>{}));
    });
}

TEST(SockDiag, TheAcceptQueueCountsWhatWasNotAccepted) {
    in_namespace([] {
        for (const int family : {AF_INET, AF_INET6}) {
            const Fd listener = listen_on(family, 80);
            const auto queue = [sockets = opened(), family] {
                const auto listeners = sockets->listeners();
                const Listener* found = listeners ? find(*listeners, family == AF_INET6, 80) : nullptr;
                return found ? static_cast<int>(found->accept_queue) : -1;
            };
            EXPECT_EQ(queue(), 0);
            std::vector<Fd> clients;
            for (int i = 1; i <= 3; ++i) {
                clients.push_back(connect_to(family, 80));
                EXPECT_EQ(queue(), i);
            }
            const Fd accepted(::accept(listener.get(), nullptr, nullptr));
            ASSERT_TRUE(accepted);
            EXPECT_EQ(queue(), 2);
        }
    });
}

TEST(SockDiag, HalfOpenConnectionsAreThoseOfTheWantedPorts) {
    in_namespace([] {
        const auto sockets = opened();
        std::vector<Fd> kept;
        for (const int family : {AF_INET, AF_INET6}) {
            for (const auto port : {std::uint16_t{80}, std::uint16_t{81}}) {
                kept.push_back(listen_on(family, port));
                defer_accept(kept.back()); // without data they stay in SYN_RECV
                kept.push_back(connect_to(family, port));
            }
        }
        for (const int times : {1, 2}) { // the second time with the buffers in use
            const auto half_open = sockets->half_open({80});
            ASSERT_TRUE(half_open) << half_open.error().message;
            ASSERT_EQ(half_open->size(), 2U) << times;
            for (const HalfOpen& h : *half_open) {
                EXPECT_EQ(h.port, 80);
                EXPECT_EQ(h.retransmits, 0U);
                EXPECT_LT(h.age, 1s);
            }
        }
        EXPECT_EQ(sockets->half_open({80, 81})->size(), 4U);
        EXPECT_EQ(sockets->half_open({82})->size(), 0U);
        EXPECT_EQ(sockets->half_open({})->size(), 0U);
        // Its data completes the handshake; the socket goes to the accept queue.
        ASSERT_EQ(::send(kept.back().get(), "x", 1, 0), 1);
        EXPECT_EQ(sockets->half_open({80, 81})->size(), 3U);
    });
}

TEST(SockDiag, TheAgeOfAHalfOpenConnectionGrows) {
    in_namespace([] {
        const auto sockets = opened();
        const Fd listener = listen_on(AF_INET, 80);
        defer_accept(listener);
        const Time before = Clock::now();
        const Fd client = connect_to(AF_INET, 80);
        Duration age{};
        while (age < 200ms && Clock::now() < before + 5s) {
            const auto half_open = sockets->half_open({80});
            ASSERT_TRUE(half_open && half_open->size() == 1);
            age = half_open->front().age;
            EXPECT_LE(age, Clock::now() - before + 20ms); // the kernel's clock ticks in up to 10 ms
        }
        EXPECT_GE(age, 200ms);
    });
}

TEST(SockDiag, ConnectedCountsBothFamiliesAndBothWaysToEnd) {
    in_namespace([] {
        const auto sockets = opened();
        std::vector<Fd> kept;
        for (const int family : {AF_INET, AF_INET6}) {
            const Fd listener = listen_on(family, 80);
            for (int i = 0; i < 3; ++i) {
                Fd client = connect_to(family, 80);
                Fd server(::accept(listener.get(), nullptr, nullptr));
                ASSERT_TRUE(server);
                if (i == 1)
                    ::shutdown(server.get(), SHUT_WR); // FIN_WAIT2 here
                if (i == 2)
                    ::shutdown(client.get(), SHUT_WR); // CLOSE_WAIT here
                kept.push_back(std::move(client));
                kept.push_back(std::move(server));
            }
        }
        EXPECT_EQ(*sockets->connected({80}, nullptr), 6U);
        EXPECT_EQ(*sockets->connected({81}, nullptr), 0U);
        struct stat one {};
        ASSERT_EQ(::fstat(kept.back().get(), &one), 0);
        const std::set<std::uint32_t> its{static_cast<std::uint32_t>(one.st_ino)}, none;
        EXPECT_EQ(*sockets->connected({80}, &its), 1U);
        EXPECT_EQ(*sockets->connected({80}, &none), 0U);
        kept.clear();
        EXPECT_EQ(*sockets->connected({80}, nullptr), 0U);
    });
}

// Ranges, single ports, more of them than the kernel's filter is given, and their borders.
TEST(SockDiag, EachSetOfPortsIsFilteredExactly) {
    in_namespace([] {
        const auto sockets = opened();
        const std::vector<std::uint16_t> open_ports{1000, 1001, 1002, 1003, 1004, 1010, 1012, 1100};
        std::vector<Fd> kept;
        for (const std::uint16_t port : open_ports) {
            kept.push_back(listen_on(AF_INET, port));
            kept.push_back(connect_to(AF_INET, port));
        }
        PortSet many_ports;
        for (std::uint16_t port = 1000; port < 1200; port = static_cast<std::uint16_t>(port + 2))
            many_ports.insert(port);
        PortSet most; // as many ranges as the kernel's filter is given
        for (std::uint16_t i = 0; i < 32; ++i)
            most.insert({static_cast<std::uint16_t>(1001 + 3 * i), static_cast<std::uint16_t>(1002 + 3 * i)});
        for (const PortSet& ports : {PortSet{1001, 1002, 1003}, PortSet{1000, 1002, 1003, 1004, 1100},
                                     PortSet{1010, 1011, 1012}, PortSet{1, 1012, 65535}, many_ports, most}) {
            const auto expected =
                std::ranges::count_if(open_ports, [&](auto p) { return ports.contains(p); });
            const auto count = sockets->connected(ports, nullptr);
            ASSERT_TRUE(count) << count.error().message;
            EXPECT_EQ(*count, static_cast<std::size_t>(expected)) << format_ports(ports);
        }
    });
}

TEST(SynRecvAge, IsBoundedFromBelowByTimerAndRetransmissions) {
    EXPECT_EQ(syn_recv_age(0, 1s), 0s);
    EXPECT_EQ(syn_recv_age(0, 400ms), 600ms);
    EXPECT_EQ(syn_recv_age(0, 0s), 1s);
    EXPECT_EQ(syn_recv_age(1, 2s), 1s);         // the second timer has just begun
    EXPECT_EQ(syn_recv_age(0, 1500ms), 1500ms); // TCP_DEFER_ACCEPT: a timer without a retransmission
    EXPECT_EQ(syn_recv_age(1, 500ms), 1s);      // first or second timer: what is certain
    EXPECT_EQ(syn_recv_age(2, 4s), 3s);
    EXPECT_EQ(syn_recv_age(5, 20s), 43s);
    EXPECT_EQ(syn_recv_age(9, 0s), 5s);
    EXPECT_EQ(syn_recv_age(0, 120s), 127s); // 1 + 2 + ... + 64
    EXPECT_EQ(syn_recv_age(0, 500s), 127s);
}

} // namespace
} // namespace syngate
