// SPDX-License-Identifier: GPL-2.0-or-later
// How many held SYNs are let go at a time, by the kernel's own queues.
#include "net/accept_room.hpp"
#include "net/sock_diag.hpp"
#include "unit/net_namespace.hpp"

#include <thread>
#include <vector>

namespace syngate::test {
namespace {

using namespace std::chrono_literals;

std::vector<Fd> connections(int family, std::uint16_t port, int count) {
    std::vector<Fd> all;
    for (int i = 0; i < count; ++i)
        all.push_back(connect_to(family, port));
    return all;
}

TEST(AcceptRoom, OneAtOnceThenHalfOfTheQueueLessWhatIsInIt) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET, 80, 16);
        const Fd other = listen_on(AF_INET, 81, 4); // nobody's who is let go
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        AcceptRoom empty(sockets->get(), {80});
        EXPECT_EQ(empty.take(100), 1U);
        EXPECT_EQ(empty.take(5), 5U);
        EXPECT_EQ(empty.take(100), 3U);
        EXPECT_EQ(empty.take(100), 8U) << "looks again; none of them came";
        const auto waiting = connections(AF_INET, 80, 3);
        AcceptRoom room(sockets->get(), {80});
        EXPECT_EQ(room.take(100), 1U);
        EXPECT_EQ(room.take(100), 5U);
    });
}

TEST(AcceptRoom, IsTheFullestQueuesOfTheFamiliesAndPorts) {
    in_namespace([] {
        const Fd four = listen_on(AF_INET, 80, 16), six = listen_on(AF_INET6, 81, 16);
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        const auto waiting = connections(AF_INET6, 81, 6);
        AcceptRoom room(sockets->get(), {80, 81});
        EXPECT_EQ(room.take(100), 1U);
        EXPECT_EQ(room.take(100), 2U);
    });
}

TEST(AcceptRoom, WaitsUntilTheServerAccepts) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET, 80, 4);
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        const auto waiting = connections(AF_INET, 80, 4);
        AcceptRoom room(sockets->get(), {80});
        EXPECT_EQ(room.take(100), 1U);
        const std::jthread server([&] {
            for (int i = 0; i < 3; ++i)
                ::close(::accept(listener.get(), nullptr, nullptr));
        });
        EXPECT_EQ(room.take(100), 1U) << "of the queue's half one place was left";
    });
}

TEST(AcceptRoom, LetsAllGoWhenNobodyAccepts) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET, 80, 4);
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        const auto waiting = connections(AF_INET, 80, 4);
        AcceptRoom room(sockets->get(), {80});
        EXPECT_EQ(room.take(100), 1U);
        const Time before = Clock::now();
        EXPECT_EQ(room.take(100), 100U);
        EXPECT_GE(Clock::now() - before, 250ms) << "it waited first";
        EXPECT_EQ(room.take(100), 100U);
        EXPECT_LT(Clock::now() - before, 900ms) << "once";
    });
}

TEST(AcceptRoom, HasNoEndWhereNobodyListens) {
    in_namespace([] {
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        for (Sockets* each : {sockets->get(), static_cast<Sockets*>(nullptr)}) {
            AcceptRoom room(each, {80});
            EXPECT_EQ(room.take(100), 1U);
            EXPECT_EQ(room.take(100), 100U);
        }
    });
}

} // namespace
} // namespace syngate::test
