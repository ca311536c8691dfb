// SPDX-License-Identifier: GPL-2.0-or-later
// A reload by steering: the order of its steps, what it falls back to, and what is left when one fails. The
// first generation's listener on port 80 has the cookie 1.
#include "reload_fakes.hpp"

namespace syngate::test {
namespace {

struct FlipTest : ProtocolTest {
    void serve_signalled(Flip flip) {
        server.how.reload = ReloadHow::signal;
        server.how.stays_up = true;
        serve_flipping(flip);
    }
    void expect_nothing_is_steered() {
        EXPECT_TRUE(steering.steered.empty());
        EXPECT_EQ(gate.closes, 0);
    }
};

TEST_F(FlipTest, OldSocketsArePinnedBeforeTheNewServerStartsAndNoGateIsClosed) {
    serve_flipping(Flip::always);
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1", "start beside", "steer 80 to 2",
                                     "tell 101 USR1", "release"}));
    EXPECT_EQ(step_names(outcome), (Events{"check", "pin", "start", "flip", "drain", "swap"}));
    EXPECT_EQ(outcome.gated, PortSet{});
    EXPECT_EQ(outcome.flipped, PortSet{80});
    EXPECT_EQ(protocol->current(), 102);
    EXPECT_EQ(protocol->retiring(), std::vector<Generation>{101});
}

TEST_F(FlipTest, AllPortsAndShardsFlipInOneStep) {
    serve_flipping(Flip::automatic, {80, 443});
    world.listen(101, {80});
    server.on_start = [&](Generation g) {
        world.listen(g, {80, 443});
        world.listen(g, {80});
    };
    EXPECT_EQ(protocol->reload().flipped, (PortSet{80, 443}));
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1 3, 443 to 2", "start beside",
                                     "steer 80 to 4 6, 443 to 5", "tell 101 USR1", "release"}));
}

TEST_F(FlipTest, TheFlipWaitsUntilTheNewServerIsReadyAndTheOldOnesGoBeforeTheRelease) {
    serve_flipping(Flip::always);
    server.ready = false;
    server.on_start = [&](Generation g) {
        world.later(9, [this, g] { world.listen(g, {80}); });
        world.later(30, [this] { server.ready = true; });
    };
    server.on_tell = [&](Generation g, int) { world.later(9, [this, g] { world.listening.erase(g); }); };
    world.on_event = [&](const std::string& what) {
        if (what == "steer 80 to 2") {
            EXPECT_TRUE(server.ready);
        }
        if (what == "release") {
            EXPECT_TRUE(world.listening[101].empty());
        }
    };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(world.has("steer 80 to 2"));
}

TEST_F(FlipTest, TheOldServerIsToldToGoWhenItsQueuesAreEmpty) {
    serve_flipping(Flip::always);
    world.on_event = [&](const std::string& what) {
        if (what == "steer 80 to 2") {
            world.listening[101].front().accept_queue = 3;
            world.listening[102].front().accept_queue = 9; // the new one's own, not waited for
            world.later(20, [this] { world.listening[101].front().accept_queue = 0; });
        }
        if (what == "tell 101 USR1") {
            EXPECT_EQ(world.listening[101].front().accept_queue, 0U);
        }
    };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok());
    EXPECT_EQ(outcome.queued, 3U);
    EXPECT_EQ(outcome.left, 0U);
}

TEST_F(FlipTest, SocketsThatAreHandedOverNeedNoFlip) {
    serve_flipping(Flip::always);
    server.on_start = [&](Generation g) { world.listening[g] = world.listening[101]; };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok());
    EXPECT_EQ(outcome.flipped, PortSet{});
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1", "start beside", "tell 101 USR1", "release"}));
}

TEST_F(FlipTest, PortsThatAreNewOrGoneAreNotSteered) {
    serve_flipping(Flip::always, {80, 81});
    server.ports = {80, 82};
    EXPECT_EQ(protocol->reload().flipped, PortSet{80});
    EXPECT_TRUE(world.has("steer 80 to 3"));
}

TEST_F(FlipTest, OnlyNamedPortsAreSteered) {
    options.ports = {443};
    serve_flipping(Flip::always, {80, 443});
    EXPECT_EQ(protocol->reload().flipped, PortSet{443});
    EXPECT_TRUE(world.has("steer 443 to 2"));
    EXPECT_TRUE(world.has("steer 443 to 4"));
}

TEST_F(FlipTest, OthersOnTheSamePortKeepTheirs) {
    serve_flipping(Flip::always);
    Listener other = world.new_listener(80);
    other.address[0] = 10;
    world.strangers.push_back(other);
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(world.has("steer 80 to 1, 80 to")) << testing::PrintToString(world.journal);
    EXPECT_TRUE(world.has("steer 80 to 3, 80 to"));
}

struct FlipBrokenAt : FlipTest, testing::WithParamInterface<int> {};

TEST_P(FlipBrokenAt, WhatIsNotPossibleGoesByHoldWhenThatIsAllowed) {
    steering.fail_at = GetParam();
    serve_flipping(Flip::automatic);
    const Generation old = *protocol->current();
    gate.on_open = [&] { EXPECT_TRUE(world.listening[old].empty()); };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_NE(outcome.message.find("the socket is gone"), std::string::npos) << outcome.message;
    EXPECT_EQ(outcome.gated, PortSet{80});
    EXPECT_EQ(outcome.flipped, PortSet{});
    EXPECT_EQ(gate.closes, 1);
    EXPECT_EQ(gate.opens, 1);
    EXPECT_TRUE(steering.steered.empty());
}

INSTANTIATE_TEST_SUITE_P(Step, FlipBrokenAt, testing::Values(1, 2));

TEST_F(FlipTest, WhatIsNotPossibleChangesNothingWhenOnlyFlipIsAllowed) {
    serve_flipping(Flip::always);
    steering.fail_at = 1;
    Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_NE(outcome.message.find("the socket is gone"), std::string::npos);
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1"}));
    expect_old_untouched();

    world.journal.clear();
    steering.fail_at = 3;
    outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_EQ(world.journal,
              (Events{"check", "steer 80 to 1", "start beside", "steer 80 to 2", "kill 102", "release"}));
    expect_old_untouched();
    expect_nothing_is_steered();
}

TEST_F(FlipTest, ANewServerThatDoesNotComeNeverGetsAConnection) {
    serve_flipping(Flip::always);
    server.on_start = [&](Generation g) {
        world.listen(g, {80});
        world.later(5, [this, g] { world.end(g, {.signalled = false, .value = 3}); });
    };
    server.ready = false;
    EXPECT_FALSE(protocol->reload().ok());
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1", "start beside", "kill 102", "release"}));
    expect_old_untouched();
    expect_nothing_is_steered();
}

TEST_F(FlipTest, ABadConfigurationSteersNothing) {
    serve_flipping(Flip::always);
    server.bad_configuration = true;
    EXPECT_FALSE(protocol->reload().ok());
    EXPECT_EQ(world.journal, Events{"check"});
    server.bad_configuration = false;
    server.cannot_start = true;
    EXPECT_FALSE(protocol->reload().ok());
    expect_old_untouched();
    expect_nothing_is_steered();
}

TEST_F(FlipTest, ANewServerThatDiesAfterTheFlipGivesThePortsBack) {
    serve_flipping(Flip::always);
    world.on_event = [&](const std::string& what) {
        if (what == "steer 80 to 2")
            world.end(102, {.signalled = true, .value = SIGSEGV});
    };
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_EQ(outcome.flipped, PortSet{});
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1", "start beside", "steer 80 to 2",
                                     "steer 80 to 1", "kill 102", "release"}));
    expect_old_untouched();
    expect_nothing_is_steered();
}

// The new server has connections by then.
TEST_F(FlipTest, StoppingAfterTheFlipKillsNobody) {
    bool stop = false;
    options.cancelled = [&] { return stop; };
    serve_flipping(Flip::always);
    world.on_event = [&](const std::string& what) { stop |= what == "steer 80 to 2"; };
    (void)protocol->reload();
    EXPECT_FALSE(world.has("kill 102"));
    EXPECT_TRUE(world.has("tell 101 USR1"));
    EXPECT_EQ(protocol->current(), 102);
    expect_nothing_is_steered();
}

TEST_F(FlipTest, ARestartClosesTheGate) {
    serve_flipping(Flip::always);
    EXPECT_TRUE(protocol->restart().ok());
    EXPECT_EQ(gate.closes, 1);
    for (const std::string& event : world.journal)
        EXPECT_FALSE(event.starts_with("steer")) << event;
}

TEST_F(FlipTest, AServerThatReloadsItselfIsFlippedToItsNewWorkersSockets) {
    serve_signalled(Flip::always);
    world.listen(101, {80}); // cookies 1 and 2
    const auto inode = [&](std::uint64_t cookie) { return static_cast<std::uint32_t>(1000 + cookie); };
    server.workers = {{101, {inode(1), inode(2)}}, {7, {inode(1), inode(2)}}};
    server.on_tell = [&](Generation, int) {
        world.later(5, [&] {
            server.workers = {{101, {inode(1)}}, {7, {inode(1), inode(2)}}, {8, {inode(1)}}};
        });
        world.later(40, [&] {
            server.workers = {{101, {inode(1)}}, {7, {}}, {8, {inode(1)}}};
            world.listening[101].pop_back();
        });
    };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal,
              (Events{"check", "steer 80 to 1 2", "tell 101 HUP", "steer 80 to 1", "release"}));
    EXPECT_EQ(outcome.flipped, PortSet{80});
    EXPECT_EQ(outcome.gated, PortSet{});
}

TEST_F(FlipTest, AServerThatReloadsItselfAndKeepsItsSocketsNeedsNoFlip) {
    serve_signalled(Flip::automatic);
    server.workers = {{101, {1001}}, {7, {1001}}};
    server.on_tell = [&](Generation, int) { server.workers = {{101, {1001}}, {7, {}}, {8, {1001}}}; };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 1", "tell 101 HUP", "release"}));
    EXPECT_EQ(outcome.flipped, PortSet{});
}

TEST_F(FlipTest, AServerThatReloadsItselfInSomeOtherWayIsHeld) {
    server.how.reload = ReloadHow::signal;
    serve_flipping(Flip::automatic);
    EXPECT_EQ(protocol->reload().gated, PortSet{80});
}

struct FlipByHandTest : FlipTest {
    void SetUp() override { serve_flipping(Flip::automatic, {80, 8081}); } // cookies 1 and 2
    void TearDown() override {
        (void)steerer.clear({});
        FlipTest::TearDown();
    }
};

TEST_F(FlipByHandTest, APortGetsAnotherOnesListenersUntilItIsCleared) {
    EXPECT_TRUE(steerer.flip({{80, 8081}, {443, 8081}}));
    EXPECT_EQ(world.journal, (Events{"steer 80 to 2, 443 to 2"}));
    EXPECT_TRUE(steerer.clear({80}));
    EXPECT_EQ(world.journal.back(), "steer 443 to 2");
    EXPECT_FALSE(steerer.clear({80}));
    EXPECT_TRUE(steerer.clear({}));
    EXPECT_EQ(world.journal.back(), "release");
}

TEST_F(FlipByHandTest, NobodyThereIsAnErrorAndChangesNothing) {
    EXPECT_TRUE(steerer.flip({{80, 8081}}));
    const auto failed = steerer.flip({{443, 9999}});
    ASSERT_FALSE(failed);
    EXPECT_NE(failed.error().message.find("9999"), std::string::npos);
    EXPECT_EQ(steerer.flips(), (PortFlips{{80, 8081}}));
}

TEST_F(FlipByHandTest, AReloadTakesWhatIsFlippedWithIt) {
    EXPECT_TRUE(steerer.flip({{80, 8081}}));
    world.journal.clear();
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_EQ(world.journal, (Events{"check", "steer 80 to 2, 8081 to 2", "start beside",
                                     "steer 80 to 4, 8081 to 4", "tell 101 USR1", "steer 80 to 4"}));
}

TEST_F(FlipByHandTest, AFlippedPortFollowsTheListenersAsTheyComeAndGo) {
    ASSERT_TRUE(steerer.follow_on(*loop, [] { return false; }));
    EXPECT_TRUE(steerer.flip({{443, 8081}}));
    steerer.follow();
    EXPECT_EQ(world.journal, (Events{"steer 443 to 2"})); // nothing has changed
    world.strangers.push_back(world.new_listener(8081));
    EXPECT_TRUE(loop->run_until([&] { return world.journal.back() == "steer 443 to 3 2"; },
                                Clock::now() + 10s, 10ms));
    EXPECT_TRUE(steerer.clear({}));
}

TEST_F(FlipByHandTest, AWindowCoversClientsOfAPortThatIsFlippedToTheServers) {
    EXPECT_TRUE(steerer.flip({{443, 8081}, {444, 80}}));
    std::set<std::uint64_t> flipped_to;
    gate.on_open = [&] { // what is replayed now is for the new server
        for (const SteerRule& rule : steering.steered)
            if (rule.at.port == 444)
                flipped_to = cookies_of(rule.to, {80});
    };
    const Outcome outcome = protocol->restart();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.gated, (PortSet{80, 443, 444, 8081}));
    EXPECT_EQ(flipped_to, cookies_of(world.listening[102], {80}));
}

// 101 is given 9001 and listens there with the cookie 1, 102 is given 9002.
struct BlueGreenTest : FlipTest {
    void SetUp() override {
        server.how.reload = ReloadHow::restart;
        server.backing = {9002, 9001};
        server.on_start = [this](Generation g) { world.listen(g, {server.backing_port(g)}); };
        options.front = 80;
        options.ports = {80};
        options.flip = Flip::always;
        options.steerer = &steerer;
        protocol.emplace(*loop, gate, sockets, server, options);
        const Outcome started = protocol->start();
        ASSERT_TRUE(started.ok()) << started.message;
        EXPECT_EQ(world.journal, (Events{"start", "steer 80 to 1"}));
        world.journal.clear();
    }
};

TEST_F(BlueGreenTest, TheNewServerComesUpBesideTheOldOneAndThePortFollows) {
    for (const bool restart : {false, true}) {
        const Outcome outcome = restart ? protocol->restart() : protocol->reload();
        EXPECT_TRUE(outcome.ok()) << outcome.message;
        EXPECT_EQ(outcome.flipped, PortSet{80});
        EXPECT_EQ(gate.closes, 0);
    }
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "steer 80 to 2", "tell 101 USR1", "check",
                                     "start beside", "steer 80 to 3", "tell 102 USR1"}));
    EXPECT_EQ(protocol->current(), 103);
}

TEST_F(BlueGreenTest, ConnectionsOfTheOldServerFinishAndThoseOfTheNewOneAreNotWaitedFor) {
    server.how.graceful = false;
    options.drain.finish = 1ms;
    options.swap_timeout = 30s;
    protocol.emplace(*loop, gate, sockets, server, options);
    ASSERT_TRUE(protocol->start().ok());
    world.connected = 3; // on the port, of either
    server.connections = {17, 18};
    world.later(20, [this] { server.connections.clear(); });
    const auto ends = server.on_tell;
    server.on_tell = [&](Generation g, int signal) {
        EXPECT_TRUE(server.connections.empty());
        ends(g, signal);
    };
    const Time began = Clock::now();
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_LT(Clock::now() - began, 20s);
}

// Of a connection that was steered the local port is 80, but of one that iptables has led there 9002.
TEST_F(BlueGreenTest, ConnectionsToTheOldServersOwnPortAreWaitedFor) {
    server.how.graceful = false;
    options.drain.finish = 1ms;
    options.swap_timeout = 30s;
    protocol.emplace(*loop, gate, sockets, server, options);
    ASSERT_TRUE(protocol->start().ok());
    world.connected_port = 9002;
    world.on_event = [&](const std::string& what) {
        if (what == "steer 80 to 1 3") { // the first protocol's server listens there as well
            world.half_open = {{.port = 9002}};
            server.connections = {17};
            world.later(20, [this] { world.half_open.clear(); });
            world.later(40, [this] { server.connections.clear(); });
        }
        if (what == "tell 102 USR1") {
            EXPECT_TRUE(world.half_open.empty());
            EXPECT_TRUE(server.connections.empty());
        }
    };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.half_open, 1U) << testing::PrintToString(world.journal);
    EXPECT_TRUE(world.has("tell 102 USR1"));
}

TEST_F(BlueGreenTest, AllSocketsOfTheNewServerAreWaitedFor) {
    Source second;
    server.on_start = [&](Generation g) {
        world.listen(g, {server.backing_port(g)});
        second = *loop->after(10ms, [this, g] { world.listen(g, {server.backing_port(g)}); });
    };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(world.has("steer 80 to 2 3"));
    EXPECT_FALSE(world.has("steer 80 to 2"));
}

TEST_F(BlueGreenTest, ANewServerThatListensElsewhereFirstIsWaitedFor) {
    Source second;
    server.on_start = [&](Generation g) {
        world.listen(g, {9999}); // its metrics
        second = *loop->after(60ms, [this, g] { world.listen(g, {server.backing_port(g)}); });
    };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_TRUE(world.has("steer 80 to 3"));
}

TEST_F(BlueGreenTest, ANewServerThatDoesNotComeLeavesThePortWhereItIs) {
    server.on_start = [](Generation) {};
    EXPECT_FALSE(protocol->reload().ok());
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "kill 102"}));
    EXPECT_EQ(protocol->current(), 101);
    EXPECT_EQ(steerer.flips(), (PortFlips{{80, 9001}}));
}

TEST_F(BlueGreenTest, ANewServerThatDiesAfterTheFlipGivesThePortBack) {
    world.on_event = [&](const std::string& what) {
        if (what == "steer 80 to 2")
            world.end(102, {.signalled = true, .value = SIGSEGV});
    };
    EXPECT_FALSE(protocol->reload().ok());
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "steer 80 to 2", "steer 80 to 1", "kill 102"}));
    EXPECT_EQ(protocol->current(), 101);
    EXPECT_EQ(steerer.flips(), (PortFlips{{80, 9001}}));
}

} // namespace
} // namespace syngate::test
