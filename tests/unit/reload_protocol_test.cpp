// SPDX-License-Identifier: GPL-2.0-or-later
// The steps of the protocol and their order, when nothing goes wrong.
#include "reload_fakes.hpp"

namespace syngate::test {
namespace {

TEST_F(ProtocolTest, StartWaitsForTheServerAndTouchesNoGate) {
    server.on_start = [&](Generation g) { world.later(5, [this, g] { world.listen(g, {80, 443}); }); };
    protocol.emplace(*loop, gate, sockets, server, options);
    const Outcome outcome = protocol->start();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.action, "start");
    EXPECT_EQ(world.journal, Events{"start"});
    EXPECT_EQ(protocol->current(), 101);
}

TEST_F(ProtocolTest, TheServerStartsBeforeTheGateIsCompleteAndServesAfterIt) {
    bool complete = false;
    gate.on_complete = [&] {
        EXPECT_EQ(world.journal, Events{"start"});
        complete = true;
        return Result<void>{};
    };
    protocol.emplace(*loop, gate, sockets, server, options);
    EXPECT_TRUE(protocol->start().ok());
    EXPECT_TRUE(complete);
}

TEST_F(ProtocolTest, StartWaitsForEveryNamedPort) {
    options.ports = {80, 443};
    options.settle = 10s;
    server.on_start = [&](Generation g) {
        world.listen(g, {80});
        world.later(8, [this, g] { world.listen(g, {443}); });
    };
    protocol.emplace(*loop, gate, sockets, server, options);
    EXPECT_TRUE(protocol->start().ok());
    EXPECT_EQ(ports_of(world.listening[101]), (PortSet{80, 443}));
}

TEST_F(ProtocolTest, StartOfAServerThatListensElsewhereSettles) {
    options.ports = {443};
    protocol.emplace(*loop, gate, sockets, server, options);
    const Time before = Clock::now();
    EXPECT_TRUE(protocol->start().ok());
    EXPECT_GE(Clock::now() - before, options.settle);
}

TEST_F(ProtocolTest, StartThatNeverListensIsKilled) {
    server.ports = {};
    protocol.emplace(*loop, gate, sockets, server, options);
    const Outcome outcome = protocol->start();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_EQ(world.journal, (Events{"start", "kill 101"}));
    EXPECT_FALSE(protocol->current());
}

TEST_F(ProtocolTest, StartThatEndsSaysHow) {
    server.on_start = [&](Generation g) { world.end(g, {.signalled = false, .value = 3}); };
    protocol.emplace(*loop, gate, sockets, server, options);
    const Outcome outcome = protocol->start();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_NE(outcome.message.find("exited with status 3"), std::string::npos) << outcome.message;
    EXPECT_EQ(world.journal, Events{"start"});
    EXPECT_FALSE(protocol->current());
}

TEST_F(ProtocolTest, OverlapClosesTheGateOnlyForTheSwap) {
    serve();
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "stage 80", "close", "tell 101 USR1", "open"}));
    EXPECT_EQ(step_names(outcome), (Events{"check", "start", "stage", "close", "drain", "swap", "open"}));
    EXPECT_EQ(outcome.action, "reload");
    EXPECT_EQ(outcome.gated, PortSet{80});
    EXPECT_EQ(outcome.window.parked, 7U);
    EXPECT_EQ(protocol->current(), 102);
    EXPECT_EQ(protocol->retiring(), std::vector<Generation>{101});
    protocol->reap_retired();
    EXPECT_TRUE(protocol->retiring().empty());
}

TEST_F(ProtocolTest, RetiredGenerationsAreKeptUntilTheyEnd) {
    serve();
    server.on_tell = [&](Generation g, int) { world.listening.erase(g); };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(protocol->reload().ok());
    protocol->reap_retired();
    EXPECT_EQ(protocol->retiring(), (std::vector<Generation>{101, 102}));
    world.end(101);
    protocol->reap_retired();
    EXPECT_EQ(protocol->retiring(), std::vector<Generation>{102});
}

TEST_F(ProtocolTest, OverlapClosesWhenTheNewServerListensAndOpensWhenTheOldHasLetGo) {
    serve();
    server.on_start = [&](Generation g) { world.later(9, [this, g] { world.listen(g, {80}); }); };
    server.on_tell = [&](Generation g, int) { world.later(9, [this, g] { world.listening.erase(g); }); };
    gate.on_close = [&] {
        EXPECT_EQ(ports_of(world.listening[102]), PortSet{80});
        EXPECT_EQ(ports_of(world.listening[101]), PortSet{80});
    };
    gate.on_open = [&] {
        EXPECT_TRUE(world.listening[101].empty());
        EXPECT_EQ(ports_of(world.listening[102]), PortSet{80});
    };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_EQ(gate.opens, 1);
}

TEST_F(ProtocolTest, ListeningForIpv4AloneIsNotEnoughWhereTheOldServerDidBoth) {
    options.settle = 10s;
    options.start_timeout = 10s;
    options.ports = {80};
    serve();
    Listener six = world.new_listener(80);
    six.ipv6 = true;
    world.listening[101].push_back(six);
    for (const bool full : {false, true}) {
        server.on_start = [&](Generation g) {
            world.listen(g, {80});
            world.later(30, [this, g] {
                world.listen(g, {80});
                world.listening[g].back().ipv6 = true;
            });
        };
        gate.on_close = [&] { EXPECT_TRUE(full || world.listening[102].size() == 2); };
        gate.on_open = [&] { EXPECT_EQ(world.listening.rbegin()->second.size(), 2U); };
        const Outcome outcome = full ? protocol->restart() : protocol->reload();
        EXPECT_TRUE(outcome.ok()) << outcome.message;
    }
}

// A server that listens may still die of the signal that will tell it to finish.
TEST_F(ProtocolTest, OverlapWaitsUntilTheNewServerIsThroughWithStarting) {
    serve();
    server.ready = false;
    server.on_start = [&](Generation g) {
        world.listen(g, {80});
        world.later(30, [this] { server.ready = true; });
    };
    gate.on_close = [&] { EXPECT_TRUE(server.ready); };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_EQ(gate.closes, 1);
    EXPECT_EQ(protocol->current(), 102);
}

TEST_F(ProtocolTest, PolicyAndLeaseReachTheGate) {
    options.policy = Policy::drop;
    options.lease = 1234ms;
    serve();
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(world.has("stage 80 drop"));
    EXPECT_EQ(gate.leases, std::vector<Duration>{1234ms});
}

TEST_F(ProtocolTest, SocketsThatWerePassedOnNeedNoWindow) {
    serve({80, 443});
    server.on_start = [&](Generation g) { world.listening[g] = world.listening[101]; };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "tell 101 USR1"}));
    EXPECT_TRUE(outcome.gated.empty());
    EXPECT_EQ(gate.closes, 0);
    EXPECT_EQ(protocol->current(), 102);
    EXPECT_EQ(protocol->retiring(), std::vector<Generation>{101});
}

TEST_F(ProtocolTest, OnlyThePortWhoseSocketsAreNewIsGated) {
    serve({80, 443});
    server.on_start = [&](Generation g) {
        world.listening[g] = {world.listening[101][0], world.new_listener(443)};
    };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(world.has("stage 443"));
}

TEST_F(ProtocolTest, NewAndGonePortsAreNotGated) {
    serve({80, 81});
    server.ports = {80, 82};
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_TRUE(world.has("stage 80"));
    EXPECT_EQ(outcome.gated, PortSet{80});
}

TEST_F(ProtocolTest, NamedPortsRestrictTheGateHoweverTheServerReloads) {
    options.ports = {443};
    for (const ReloadHow how : every_way) {
        server.how.reload = how;
        world.ended.clear();
        protocol.emplace(*loop, gate, sockets, server, options);
        server.ports = {80, 443};
        ASSERT_TRUE(protocol->start().ok());
        world.journal.clear();
        const Outcome outcome = protocol->reload();
        EXPECT_TRUE(outcome.ok()) << outcome.message;
        EXPECT_TRUE(world.has("stage 443"));
        EXPECT_EQ(outcome.gated, PortSet{443});
    }
}

TEST_F(ProtocolTest, AnOldServerThatDiesMeanwhileDoesNotStopTheReload) {
    serve();
    server.on_start = [&](Generation g) {
        world.end(101, {.signalled = true, .value = SIGSEGV});
        world.listen(g, {80});
    };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_EQ(protocol->current(), 102);
}

TEST_F(ProtocolTest, SignalledServerIsToldBehindTheGate) {
    serve_by(ReloadHow::signal);
    server.on_tell = [&](Generation g, int) {
        world.later(9, [this, g] { world.listening[g] = {world.new_listener(80)}; });
    };
    const std::uint64_t old = world.listening[101][0].cookie;
    gate.on_open = [&] { EXPECT_NE(world.listening[101][0].cookie, old); };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "stage 80", "close", "tell 101 HUP", "open"}));
    EXPECT_EQ(step_names(outcome), (Events{"check", "stage", "close", "drain", "swap", "open"}));
    EXPECT_EQ(outcome.steps[4].note, "");
    EXPECT_EQ(protocol->current(), 101);
    EXPECT_TRUE(protocol->retiring().empty());
}

// As nginx does it: the master keeps its sockets, new workers take them over from the old ones.
TEST_F(ProtocolTest, SignalledServerHasReloadedWhenNoOldWorkerListensAnyMore) {
    serve_by(ReloadHow::signal);
    options.settle = 10s;
    options.ports = {80};
    protocol.emplace(*loop, gate, sockets, server, options);
    const std::set<std::uint32_t> held = {7};
    ASSERT_TRUE(protocol->start().ok()); // 102 is the master
    server.workers = {{102, held}, {201, held}};
    server.on_tell = [&](Generation, int) {
        world.later(4, [this, held] { server.workers = {{102, held}, {201, held}, {202, held}}; });
        world.later(12, [this, held] { server.workers = {{102, held}, {201, {}}, {202, held}}; });
    };
    gate.on_open = [&] { EXPECT_TRUE(server.workers->at(201).empty()); };
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_LT(outcome.steps[4].took, 5s);
    EXPECT_EQ(outcome.steps[4].note, "");
}

TEST_F(ProtocolTest, SignalledServerThatShowsNothingHasSettled) {
    serve_by(ReloadHow::signal);
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.steps[4].note, "no change seen");
    EXPECT_GE(outcome.steps[4].took, options.settle);
}

TEST_F(ProtocolTest, RestartStopsAndStartsBehindTheGate) {
    serve();
    server.on_tell = [&](Generation g, int) { world.later(9, [this, g] { world.end(g); }); };
    server.on_start = [&](Generation g) {
        EXPECT_TRUE(world.ended.contains(101));
        world.later(9, [this, g] { world.listen(g, {80}); });
    };
    gate.on_open = [&] { EXPECT_EQ(ports_of(world.listening[102]), PortSet{80}); };
    const Outcome outcome = protocol->restart();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "stage 80", "close", "tell 101 USR1", "start", "open"}));
    EXPECT_EQ(step_names(outcome), (Events{"check", "stage", "close", "drain", "stop", "start", "open"}));
    EXPECT_EQ(outcome.action, "restart");
    EXPECT_EQ(protocol->current(), 102);
    protocol->reap_retired();
    EXPECT_TRUE(protocol->retiring().empty());
}

TEST_F(ProtocolTest, AServerThatKnowsNothingElseReloadsByRestart) {
    serve_by(ReloadHow::restart);
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(outcome.action, "reload");
    EXPECT_EQ(world.journal, (Events{"check", "stage 80", "close", "tell 101 USR1", "start", "open"}));
}

TEST_F(ProtocolTest, RestartInsistsOnTheEndOfTheOldServer) {
    serve();
    server.on_tell = [](Generation, int) {};
    const Outcome outcome = protocol->restart();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "stage 80", "close", "tell 101 USR1", "tell 101 TERM",
                                     "kill 101", "start", "open"}));
}

TEST_F(ProtocolTest, RestartDoesNotKillAServerThatNeedsItsTimeAfterSigterm) {
    serve();
    server.on_tell = [&](Generation g, int signal) {
        if (signal == SIGTERM)
            world.later(20, [this, g] { world.end(g); });
    };
    EXPECT_TRUE(protocol->restart().ok());
    EXPECT_FALSE(world.has("kill 101"));
}

TEST_F(ProtocolTest, RestartLetsConnectionsFinishWhereTheServerWouldNot) {
    server.how.graceful = false;
    options.drain.finish = 5s;
    serve();
    world.connected = 2;
    world.later(20, [this] { world.connected = 0; });
    const auto ends = server.on_tell;
    server.on_tell = [&](Generation g, int signal) {
        EXPECT_EQ(world.connected, 0U);
        ends(g, signal);
    };
    EXPECT_TRUE(protocol->restart().ok());

    world.connected_asked = 0;
    world.connected = 2;
    server.how.graceful = true;
    server.on_tell = ends;
    EXPECT_TRUE(protocol->restart().ok());
    EXPECT_EQ(world.connected_asked, 0);
}

TEST_F(ProtocolTest, TheLeaseIsRenewedWhileItWaitsAndNotAfterwards) {
    options.lease = 15ms;
    options.swap_timeout = 5s;
    serve();
    server.on_tell = [](Generation, int) {};
    gate.on_renew = [&] {
        if (gate.renewals == 3)
            world.end(101);
    };
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_GE(gate.renewals, 3);
    for (const Duration lease : gate.leases)
        EXPECT_EQ(lease, options.lease);
    const int renewals = gate.renewals;
    loop->run_until([] { return false; }, Clock::now() + 40ms);
    EXPECT_EQ(gate.renewals, renewals);
}

TEST_F(ProtocolTest, ALostLeaseIsToldThoughTheSwapWentWell) {
    serve();
    gate.lost = true;
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok());
    EXPECT_TRUE(outcome.window.lease_lost);
    EXPECT_NE(outcome.message.find("opened by itself"), std::string::npos) << outcome.message;
}

} // namespace
} // namespace syngate::test
