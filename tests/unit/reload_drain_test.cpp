// SPDX-License-Identifier: GPL-2.0-or-later
// The drain, by itself and as a step of the protocol; and what can be said of sets of listening sockets.
#include "reload_fakes.hpp"

namespace syngate::test {
namespace {

Listener listener(std::uint16_t port, std::uint64_t cookie, std::uint32_t queue = 0) {
    Listener l;
    l.port = port;
    l.cookie = cookie;
    l.accept_queue = queue;
    return l;
}

TEST(Listening, PortsAndCookies) {
    const Listeners listeners = {listener(443, 1), listener(80, 2), listener(80, 3)};
    EXPECT_EQ(ports_of(listeners), (PortSet{80, 443}));
    EXPECT_EQ(ports_of({}), PortSet{});
    EXPECT_EQ(cookies_of(listeners, {80}), (std::set<std::uint64_t>{2, 3}));
    EXPECT_EQ(cookies_of(listeners, {}), std::set<std::uint64_t>{});
}

TEST(Listening, AddressesTellIpv4FromIpv6AndOnePlaceFromAnother) {
    Listener four = listener(80, 1);
    Listener six = listener(80, 2);
    six.ipv6 = true;
    Listener elsewhere = listener(80, 3);
    elsewhere.address = {127, 0, 0, 1};
    EXPECT_EQ(addresses_of({four, four}).size(), 1U);
    EXPECT_EQ(addresses_of({four, six, elsewhere}).size(), 3U);
    EXPECT_EQ(addresses_of({four, listener(443, 4)}, {443}).size(), 1U);
}

TEST(Listening, RestrictedToNothingInParticularIsAll) {
    EXPECT_EQ(restricted({80, 443}, {}), (PortSet{80, 443}));
    EXPECT_EQ(restricted({80, 443}, {443, 8443}), PortSet{443});
    EXPECT_EQ(restricted({80}, {443}), PortSet{});
    EXPECT_EQ(restricted({}, {443}), PortSet{});
}

TEST(Listening, HandsChangeWhereBothListenWithOtherSockets) {
    const Listeners before = {listener(80, 1), listener(443, 2), listener(81, 3)};
    EXPECT_EQ(changing_hands(before, before), PortSet{});
    EXPECT_EQ(changing_hands(before, {listener(80, 1), listener(443, 9), listener(82, 8)}), PortSet{443});
    EXPECT_EQ(changing_hands(before, {}), PortSet{});
    EXPECT_EQ(changing_hands({}, before), PortSet{});
}

TEST(Listening, OneSocketOfSeveralThatGoesIsEnough) {
    const Listeners before = {listener(80, 1), listener(80, 2)};
    EXPECT_EQ(changing_hands(before, {listener(80, 1)}), PortSet{80});
    EXPECT_EQ(changing_hands(before, {listener(80, 1), listener(80, 2), listener(80, 3)}), PortSet{});
}

struct DrainTest : FakeMachine {
    DrainOptions options{.handshake = 5s};
    PortSet ports = {80};
    std::set<std::uint64_t> listeners = {1};

    DrainReport drain_it() {
        const auto report = drain(*loop, sockets, ports, listeners, options);
        EXPECT_TRUE(report) << report.error().message;
        return report.value_or(DrainReport{});
    }
};

TEST_F(DrainTest, NothingToWaitForTakesOneLook) {
    const DrainReport report = drain_it();
    EXPECT_EQ(report.half_open + report.queued + report.left, 0U);
    EXPECT_LE(world.looks, 2);
}

TEST_F(DrainTest, YoungHandshakesAreWaitedFor) {
    world.half_open = {{.port = 80, .age = 10ms}, {.port = 80}};
    world.later(20, [this] { world.half_open.clear(); });
    const DrainReport report = drain_it();
    EXPECT_EQ(report.half_open, 2U);
    EXPECT_EQ(report.left, 0U);
    EXPECT_TRUE(world.half_open.empty());
}

TEST_F(DrainTest, OldHandshakesAndThoseOfOtherPortsAreNot) {
    options.handshake = 500ms;
    world.half_open = {{.port = 80, .retransmits = 1, .age = 1s}, {.port = 81}};
    const Time before = Clock::now();
    const DrainReport report = drain_it();
    EXPECT_LT(Clock::now() - before, 400ms);
    EXPECT_EQ(report.half_open, 0U);
    EXPECT_EQ(report.left, 0U);
}

TEST_F(DrainTest, QueuesOfTheseListenersAreWaitedFor) {
    world.strangers = {listener(80, 1, 3), listener(80, 2, 100)};
    world.later(20, [this] { world.strangers[0].accept_queue = 0; });
    const DrainReport report = drain_it();
    EXPECT_EQ(report.queued, 3U);
    EXPECT_EQ(report.left, 0U);
    EXPECT_EQ(world.strangers[0].accept_queue, 0U);
}

TEST_F(DrainTest, WaitingIsBounded) {
    options.handshake = 30ms;
    world.half_open = {{.port = 80}};
    world.strangers = {listener(80, 1, 3)};
    const Time before = Clock::now();
    const DrainReport report = drain_it();
    EXPECT_GE(Clock::now() - before, 30ms);
    EXPECT_LT(Clock::now() - before, 5s);
    EXPECT_EQ(report.left, 4U);
}

TEST_F(DrainTest, CancelledItStopsAndSaysWhatIsLeft) {
    bool cancelled = false;
    options.cancelled = [&] { return cancelled; };
    options.finish = 5s;
    world.connected = 1;
    world.half_open = {{.port = 80}};
    world.later(10, [&] { cancelled = true; });
    const Time before = Clock::now();
    EXPECT_EQ(drain_it().left, 1U);
    EXPECT_LT(Clock::now() - before, 4s);
}

TEST_F(DrainTest, BlindnessIsAnErrorAtAnyLook) {
    sockets.broken = true;
    EXPECT_FALSE(drain(*loop, sockets, ports, listeners, options));
    sockets.broken = false;
    world.half_open = {{.port = 80}};
    world.later(10, [this] { sockets.broken = true; });
    EXPECT_FALSE(drain(*loop, sockets, ports, listeners, options));
}

TEST_F(DrainTest, ConnectionsMayFinishForAWhileWhenAskedTo) {
    world.connected = 1;
    drain_it();
    EXPECT_EQ(world.connected_asked, 0);
    options.finish = 5s;
    world.later(10, [this] { world.connected = 0; });
    drain_it();
    EXPECT_EQ(world.connected, 0U);
    world.connected = 1;
    options.finish = 20ms;
    const Time before = Clock::now();
    drain_it();
    EXPECT_GE(Clock::now() - before, 20ms);
}

struct DrainStep : ProtocolTest, testing::WithParamInterface<ReloadHow> {};
INSTANTIATE_TEST_SUITE_P(Reload, DrainStep, testing::ValuesIn(every_way));

TEST_P(DrainStep, TheOldServerIsToldWhenItsConnectionsAreDrained) {
    options.drain.handshake = 10s;
    serve_by(GetParam());
    world.half_open = {{.port = 80}};
    world.listening[101][0].accept_queue = 2;
    gate.on_close = [&] {
        world.later(20, [this] { world.half_open.clear(); });
        world.later(30, [this] { world.listening[101][0].accept_queue = 0; });
    };
    world.on_event = [&](const std::string& event) {
        if (!event.starts_with("tell"))
            return;
        EXPECT_TRUE(gate.closed);
        EXPECT_TRUE(world.half_open.empty());
        EXPECT_EQ(world.listening[101][0].accept_queue, 0U);
    };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.half_open, 1U);
    EXPECT_EQ(outcome.queued, 2U);
    EXPECT_EQ(outcome.left, 0U);
}

TEST_F(ProtocolTest, WhatTheDrainDidNotWaitForIsReported) {
    options.drain.handshake = 30ms;
    serve();
    world.half_open = {{.port = 80}};
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.left, 1U);
    EXPECT_NE(to_text(outcome).find("1 not waited for"), std::string::npos) << to_text(outcome);
}

} // namespace
} // namespace syngate::test
