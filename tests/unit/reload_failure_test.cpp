// SPDX-License-Identifier: GPL-2.0-or-later
// What is left when a step of the protocol fails: an open gate, and whichever server works.
#include "reload_fakes.hpp"

namespace syngate::test {
namespace {

bool mentions(const Outcome& outcome, const char* text) {
    return outcome.message.find(text) != std::string::npos;
}

TEST_F(ProtocolTest, ABadConfigurationChangesNothing) {
    serve();
    server.bad_configuration = true;
    for (const ReloadHow how : every_way) {
        server.how.reload = how;
        world.journal.clear();
        const Outcome outcome = protocol->reload();
        EXPECT_EQ(outcome.exit, Exit::failed);
        EXPECT_TRUE(mentions(outcome, "line 3 is wrong")) << outcome.message;
        EXPECT_EQ(world.journal, Events{"check"});
        expect_old_untouched();
    }
    EXPECT_FALSE(protocol->restart().ok());
    EXPECT_EQ(gate.closes, 0);
    expect_old_untouched();
}

TEST_F(ProtocolTest, NoServerIsLeftInFrontOfWhichTheGateIsNotComplete) {
    gate.on_complete = [] { return Result<void>(failure(Exit::impossible, "no more links")); };
    protocol.emplace(*loop, gate, sockets, server, options);
    const Outcome outcome = protocol->start();
    EXPECT_EQ(outcome.exit, Exit::impossible);
    EXPECT_TRUE(mentions(outcome, "no more links")) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"start", "kill 101"}));
    EXPECT_FALSE(protocol->current());
}

TEST_F(ProtocolTest, ANewServerThatCannotBeStartedChangesNothing) {
    serve();
    server.cannot_start = true;
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_EQ(world.journal, (Events{"check", "start beside"}));
    expect_old_untouched();
}

TEST_F(ProtocolTest, ANewServerThatEndsChangesNothing) {
    serve();
    server.on_start = [&](Generation g) {
        world.later(5, [this, g] { world.end(g, {.signalled = true, .value = SIGSEGV}); });
    };
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_TRUE(mentions(outcome, "SIGSEGV")) << outcome.message;
    EXPECT_EQ(gate.closes, 0);
    expect_old_untouched();
}

TEST_F(ProtocolTest, ANewServerThatNeverListensIsKilled) {
    serve();
    server.on_start = [](Generation) {};
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_TRUE(mentions(outcome, "does not listen within 500ms")) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "kill 102"}));
    expect_old_untouched();
}

TEST_F(ProtocolTest, ANewServerThatEndsInTheWindowIsNotSwitchedTo) {
    serve();
    gate.on_close = [&] { world.end(102, {.signalled = false, .value = 1}); };
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_TRUE(mentions(outcome, "after it listened")) << outcome.message;
    EXPECT_EQ(gate.opens, 1);
    expect_old_untouched();
}

TEST_F(ProtocolTest, AFailingGateEndsTheReloadBeforeTheOldServerIsTold) {
    serve();
    for (const ReloadHow how : every_way)
        for (bool* broken : {&gate.fail_stage, &gate.fail_close}) {
            server.how.reload = how;
            *broken = true;
            const Outcome outcome = protocol->reload();
            *broken = false;
            EXPECT_EQ(outcome.exit, Exit::failed);
            EXPECT_TRUE(mentions(outcome, "is broken")) << outcome.message;
            expect_old_untouched();
            EXPECT_EQ(world.listening.size(), 1U) << "the new server is still there";
        }
}

// What is replayed at the opening must not meet the sockets of a server that is about to be ended.
TEST_F(ProtocolTest, BlindnessInTheWindowEndsTheNewServerBeforeTheGateOpens) {
    serve();
    gate.on_close = [&] { sockets.broken = true; };
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_TRUE(mentions(outcome, "sock_diag is broken")) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "stage 80", "close", "kill 102", "open"}));
    expect_old_untouched();
}

TEST_F(ProtocolTest, BlindnessInTheWindowLeavesASingleServerUntouched) {
    serve();
    for (const ReloadHow how : {ReloadHow::signal, ReloadHow::restart}) {
        server.how.reload = how;
        world.journal.clear();
        gate.on_close = [&] { sockets.broken = true; };
        const Outcome outcome = protocol->reload();
        sockets.broken = false;
        EXPECT_EQ(outcome.exit, Exit::failed);
        EXPECT_EQ(world.journal, (Events{"check", "stage 80", "close", "open"}));
        expect_old_untouched();
    }
}

TEST_F(ProtocolTest, BlindnessBeforeTheWindowNeverClosesTheGate) {
    serve();
    server.broken = true;
    for (const ReloadHow how : every_way) {
        server.how.reload = how;
        EXPECT_EQ(protocol->reload().exit, Exit::failed);
        expect_old_untouched();
    }
    EXPECT_EQ(gate.closes, 0);
}

TEST_F(ProtocolTest, AnOldServerThatDoesNotLetGoIsEndedBeforeTheGateOpens) {
    serve();
    server.on_tell = [](Generation, int) {};
    const Outcome outcome = protocol->reload();
    EXPECT_TRUE(outcome.ok()) << outcome.message;
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "stage 80", "close", "tell 101 USR1",
                                     "tell 101 TERM", "kill 101", "open"}));
    EXPECT_EQ(protocol->current(), 102);
    protocol->reap_retired();
    EXPECT_TRUE(protocol->retiring().empty());
}

TEST_F(ProtocolTest, GenerationsThatHaveEndedAreForgotten) {
    serve();
    EXPECT_TRUE(protocol->reload().ok());
    EXPECT_TRUE(protocol->restart().ok());
    protocol->reap_retired();
    EXPECT_EQ(server.forgotten, (std::vector<Generation>{101, 102}));
}

TEST_F(ProtocolTest, BlindnessAfterTheOldServerWasToldOpensTheGate) {
    serve();
    server.on_tell = [&](Generation, int) { sockets.broken = true; };
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_EQ(world.journal.back(), "open");
    EXPECT_EQ(protocol->current(), 102);
}

TEST_F(ProtocolTest, AServerThatDiesWhileItReloadsIsReported) {
    serve_by(ReloadHow::signal);
    server.on_tell = [&](Generation g, int) { world.end(g, {.signalled = false, .value = 1}); };
    const Outcome outcome = protocol->reload();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_TRUE(mentions(outcome, "while it reloaded")) << outcome.message;
    EXPECT_EQ(world.journal.back(), "open");
}

TEST_F(ProtocolTest, ARestartThatDoesNotComeBackIsReported) {
    serve();
    server.on_start = [&](Generation g) { world.end(g, {.signalled = false, .value = 1}); };
    const Outcome outcome = protocol->restart();
    EXPECT_EQ(outcome.exit, Exit::failed);
    EXPECT_TRUE(mentions(outcome, "the old server has ended and the new one does not serve"))
        << outcome.message;
    EXPECT_FALSE(protocol->current());
    EXPECT_EQ(world.journal, (Events{"check", "stage 80", "close", "tell 101 USR1", "start", "open"}));
}

TEST_F(ProtocolTest, ARestartThatCannotStartIsReported) {
    serve();
    server.cannot_start = true;
    const Outcome outcome = protocol->restart();
    EXPECT_TRUE(mentions(outcome, "no such program")) << outcome.message;
    EXPECT_FALSE(protocol->current());
    EXPECT_EQ(world.journal.back(), "open");
}

// Clients that wait for a server that does not come are told so before it is ended.
TEST_F(ProtocolTest, ARestartThatNeverListensOpensBeforeItKills) {
    serve();
    server.on_start = [](Generation) {};
    EXPECT_FALSE(protocol->restart().ok());
    EXPECT_FALSE(protocol->current());
    EXPECT_EQ(world.journal,
              (Events{"check", "stage 80", "close", "tell 101 USR1", "start", "open", "kill 102"}));
}

struct EveryWay : ProtocolTest, testing::WithParamInterface<ReloadHow> {
    bool cancelled = false;

    void SetUp() override {
        options.cancelled = [this] { return cancelled; };
        options.start_timeout = options.swap_timeout = options.end_timeout = 20s;
        options.drain.handshake = 20s;
        serve_by(GetParam());
    }
};
INSTANTIATE_TEST_SUITE_P(Reload, EveryWay, testing::ValuesIn(every_way));

// Before the old server was told to go, giving up means that nothing has happened.
TEST_P(EveryWay, CancelledInTheDrainTheOldServerIsNotTold) {
    world.half_open = {{.port = 80}};
    gate.on_close = [&] { cancelled = true; };
    const Time before = Clock::now();
    const Outcome outcome = protocol->reload();
    EXPECT_LT(Clock::now() - before, 10s);
    EXPECT_TRUE(mentions(outcome, "the agent is stopping")) << outcome.message;
    expect_old_untouched();
    EXPECT_EQ(world.listening.size(), 1U);
}

TEST_P(EveryWay, CancelledAfterTheOldServerWasToldItOpensAtOnce) {
    options.settle = 20s;
    options.ports = {80};
    protocol.emplace(*loop, gate, sockets, server, options);
    ASSERT_TRUE(protocol->start().ok());
    server.on_tell = [&](Generation, int) { world.later(5, [this] { cancelled = true; }); };
    const Time before = Clock::now();
    const Outcome outcome = protocol->reload();
    EXPECT_LT(Clock::now() - before, 10s);
    EXPECT_TRUE(mentions(outcome, "the agent is stopping")) << outcome.message;
    EXPECT_EQ(world.journal.back(), "open");
    EXPECT_EQ(gate.opens, 1);
}

TEST_F(ProtocolTest, CancelledWhileTheNewServerStartsItIsKilled) {
    bool cancelled = false;
    options.cancelled = [&] { return cancelled; };
    options.start_timeout = 20s;
    serve();
    server.on_start = [&](Generation) { world.later(5, [&] { cancelled = true; }); };
    const Time before = Clock::now();
    EXPECT_FALSE(protocol->reload().ok());
    EXPECT_LT(Clock::now() - before, 10s);
    EXPECT_EQ(world.journal, (Events{"check", "start beside", "kill 102"}));
    expect_old_untouched();
}

} // namespace
} // namespace syngate::test
