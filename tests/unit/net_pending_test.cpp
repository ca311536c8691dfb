// SPDX-License-Identifier: GPL-2.0-or-later
// What the drain waits for, seen both ways: by the BPF iterator, and by walking the connections.
#include "net/listen_queues.hpp"
#include "net/sock_diag.hpp"
#include "unit/net_namespace.hpp"

#include <netinet/tcp.h>
#include <poll.h>

namespace syngate::test {
namespace {

constexpr auto handshake = std::chrono::milliseconds(500);

struct Seen {
    Pending by_iterator;
    Pending by_walk;
};

Seen look(Sockets& sockets, std::uint16_t port) {
    std::set<std::uint64_t> cookies;
    const auto listeners = sockets.listeners();
    for (const Listener& listener : *listeners)
        if (listener.port == port)
            cookies.insert(listener.cookie);
    const auto by_iterator = sockets.pending({port}, cookies, handshake);
    const auto by_walk = sockets.Sockets::pending({port}, cookies, handshake);
    EXPECT_TRUE(by_iterator && by_walk);
    return {by_iterator.value_or(Pending{99, 99}), by_walk.value_or(Pending{99, 99})};
}

TEST(Pending, BothWaysSeeTheAcceptQueueOfThePortAskedForOnly) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET, 80, 16);
        const Fd other = listen_on(AF_INET, 81, 16);
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        const Fd first = connect_to(AF_INET, 80);
        const Fd second = connect_to(AF_INET, 80);
        const Fd third = connect_to(AF_INET, 81);
        const Seen seen = look(**sockets, 80);
        EXPECT_EQ(seen.by_iterator.queued, 2U);
        EXPECT_EQ(seen.by_walk.queued, 2U);
        EXPECT_EQ(seen.by_iterator.half_open, 0U);
        EXPECT_EQ(seen.by_walk.half_open, 0U);
        const Fd accepted(::accept(listener.get(), nullptr, nullptr));
        EXPECT_EQ(look(**sockets, 80).by_iterator.queued, 1U);
    });
}

TEST(Pending, AHalfOpenConnectionCountsWhileItIsYoungAndNotForEver) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET6, 80, 16);
        const int seconds = 60; // without data the handshake does not end
        ASSERT_EQ(::setsockopt(listener.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds), 0);
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        const Fd silent = connect_to(AF_INET6, 80);
        const Seen young = look(**sockets, 80);
        EXPECT_EQ(young.by_iterator.half_open, 1U);
        EXPECT_EQ(young.by_walk.half_open, 1U);

        const Time deadline = Clock::now() + std::chrono::seconds(10);
        Seen now = young;
        while (now.by_iterator.half_open + now.by_walk.half_open > 0 && Clock::now() < deadline) {
            ::poll(nullptr, 0, 5);
            now = look(**sockets, 80);
        }
        EXPECT_EQ(now.by_iterator.half_open, 0U);
        EXPECT_EQ(now.by_walk.half_open, 0U);
        EXPECT_EQ((*sockets)->half_open({80})->size(), 1U); // it is still there
    });
}

TEST(Pending, TheIteratorStopsAtTheListenersAskedFor) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET, 80, 16);
        const auto queues = ListenQueues::load();
        if (!queues)
            GTEST_SKIP() << queues.error().message;
        EXPECT_TRUE((*queues)->read({})->empty());
        EXPECT_TRUE((*queues)->read({0xdeadbeef})->empty());
    });
}

} // namespace
} // namespace syngate::test
