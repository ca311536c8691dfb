// SPDX-License-Identifier: GPL-2.0-or-later
// How many held SYNs are let go at a time.
#include "net/accept_room.hpp"
#include "net/sock_diag.hpp"
#include "unit/net_namespace.hpp"

#include <vector>

namespace syngate::test {
namespace {

using namespace std::chrono_literals;

// A kernel's queues; `next` happens before each look at the listeners.
struct FakeSockets : Sockets {
    std::vector<Listener> all;
    std::size_t on_their_way = 0;
    bool readable = true;
    std::function<void()> next = [] {};
    int looks = 0;

    Result<std::vector<Listener>> listeners() override {
        ++looks;
        next();
        if (!readable)
            return failure(Exit::failed, "no");
        return all;
    }
    Result<std::vector<HalfOpen>> half_open(const PortSet&) override {
        return std::vector<HalfOpen>(on_their_way);
    }
    Result<std::size_t> connected(const PortSet&, const std::set<std::uint32_t>*) override { return 0; }

    Listener& listen(std::uint16_t port, std::uint32_t backlog, std::uint32_t queued = 0) {
        Listener listener;
        listener.port = port;
        listener.backlog = backlog;
        listener.accept_queue = queued;
        listener.cookie = all.size() + 1;
        listener.address[0] = static_cast<std::uint8_t>(all.size());
        all.push_back(listener);
        return all.back();
    }
    AcceptRoom room(std::uint64_t waiting, Duration lease = 10s) {
        return {this, {80, 81}, waiting, Clock::now() + lease};
    }
};

TEST(AcceptRoom, AllThatFitGoAtOnceAfterOneLook) {
    FakeSockets sockets;
    sockets.listen(80, 16, 3);
    auto room = sockets.room(5);
    EXPECT_EQ(room.take(5), 5U);
    EXPECT_EQ(sockets.looks, 1);
    EXPECT_EQ(sockets.room(1).take(1), 1U);
    EXPECT_EQ(sockets.looks, 1) << "one needs no look";
}

TEST(AcceptRoom, HalfOfTheQueueLessWhatIsInItAndOnItsWay) {
    FakeSockets sockets;
    Listener& listener = sockets.listen(80, 16, 3);
    sockets.on_their_way = 50; // somebody else's
    auto room = sockets.room(100);
    EXPECT_EQ(room.take(2), 2U);
    EXPECT_EQ(room.take(100), 3U);
    sockets.next = [&] { listener.accept_queue = 0; };
    EXPECT_EQ(room.take(100), 3U) << "five of those on their way may be ours";
    sockets.on_their_way = 0;
    EXPECT_EQ(room.take(100), 8U);
}

TEST(AcceptRoom, WaitsUntilTheServerAccepts) {
    FakeSockets sockets;
    Listener& listener = sockets.listen(80, 8, 2);
    auto room = sockets.room(100);
    EXPECT_EQ(room.take(100), 2U);
    sockets.next = [&] { listener.accept_queue = sockets.looks < 5 ? 4 : 3; };
    EXPECT_EQ(room.take(100), 1U);
    EXPECT_EQ(sockets.looks, 5);
}

TEST(AcceptRoom, TheFullestQueueCounts) {
    FakeSockets sockets;
    sockets.listen(80, 100);
    sockets.listen(81, 16, 6);
    sockets.listen(82, 1); // not asked for
    EXPECT_EQ(sockets.room(100).take(100), 2U);
}

TEST(AcceptRoom, WhatWasFullFromTheBeginningDoesNot) {
    FakeSockets sockets;
    sockets.listen(80, 16);
    sockets.listen(81, 4, 4);
    auto room = sockets.room(100);
    EXPECT_EQ(room.take(100), 8U);
    EXPECT_EQ(room.take(100), 8U);
}

TEST(AcceptRoom, SocketsThatShareAnAddressHaveTheRoomOfAll) {
    FakeSockets sockets;
    for (int i = 0; i < 4; ++i)
        sockets.listen(80, 4).address = {};
    EXPECT_EQ(sockets.room(100).take(100), 8U);
}

TEST(AcceptRoom, ThereIsRoomForOneInTheShortestQueue) {
    FakeSockets sockets;
    sockets.listen(80, 0);
    auto room = sockets.room(100);
    EXPECT_EQ(room.take(100), 1U);
    EXPECT_EQ(room.take(100), 1U);
}

TEST(AcceptRoom, AHandshakeThatTakesLongIsNotWaitedFor) {
    FakeSockets sockets;
    sockets.listen(80, 16);
    sockets.on_their_way = 100;
    const Time before = Clock::now();
    auto room = sockets.room(100);
    EXPECT_EQ(room.take(100), 8U);
    EXPECT_EQ(room.take(100), 8U);
    EXPECT_GE(Clock::now() - before, 20ms);
}

TEST(AcceptRoom, LetsAllGoWhenNobodyAccepts) {
    FakeSockets sockets;
    Listener& listener = sockets.listen(80, 4);
    const Time before = Clock::now();
    auto room = sockets.room(100);
    EXPECT_EQ(room.take(100), 2U);
    listener.accept_queue = 4;
    EXPECT_EQ(room.take(98), 98U);
    EXPECT_GE(Clock::now() - before, 250ms);
    const int looks = sockets.looks;
    EXPECT_EQ(room.take(100), 100U);
    EXPECT_EQ(sockets.looks, looks) << "waits once";
}

TEST(AcceptRoom, NobodyWaitsUntilTheLeaseEnds) {
    FakeSockets sockets;
    Listener& listener = sockets.listen(80, 4);
    auto room = sockets.room(100, 15ms);
    EXPECT_EQ(room.take(100), 2U);
    listener.accept_queue = 4;
    const Time before = Clock::now();
    EXPECT_EQ(room.take(98), 98U);
    EXPECT_LT(Clock::now() - before, 90ms);
}

TEST(AcceptRoom, HasNoEndWhereNobodyListensOrNobodyCanTell) {
    FakeSockets sockets;
    EXPECT_EQ(sockets.room(100).take(100), 100U);
    sockets.listen(80, 4);
    sockets.readable = false;
    EXPECT_EQ(sockets.room(100).take(100), 100U);
    EXPECT_EQ(AcceptRoom(nullptr, {80}, 100, Time::max()).take(100), 100U);
}

TEST(AcceptRoom, ReadsTheKernelsQueues) {
    in_namespace([] {
        const Fd listener = listen_on(AF_INET, 80, 16);
        const auto sockets = open_sock_diag();
        ASSERT_TRUE(sockets);
        std::vector<Fd> waiting;
        for (int i = 0; i < 3; ++i)
            waiting.push_back(connect_to(AF_INET, 80));
        const auto queued = [&] {
            const auto all = (*sockets)->listeners();
            return all && all->size() == 1 && all->front().accept_queue == 3;
        };
        for (const Time until = Clock::now() + 5s; !queued() && Clock::now() < until;) {
        }
        EXPECT_EQ(AcceptRoom(sockets->get(), {80}, 100, Time::max()).take(100), 5U);
    });
}

} // namespace
} // namespace syngate::test
