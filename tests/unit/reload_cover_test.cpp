// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate exec` with real commands, and a gate and sockets in memory.
#include "reload/cover.hpp"

#include "reload_fakes.hpp"
#include "server_test_support.hpp"

#include <filesystem>
#include <fstream>

namespace syngate::test {
namespace {

struct CoverTest : FakeMachine {
    std::unique_ptr<Children> children = *Children::start(*loop);
    CoverOptions options;
    TempDir directory;

    CoverTest() {
        options.ports = {80};
        options.wait_timeout = 50ms;
        options.settle = 1ms;
        options.drain.handshake = 5s;
    }
    Result<Covered> cover_it(const Argv& command) {
        return cover(*loop, gate, sockets, *children, command, options);
    }
    // A command that leaves a file behind.
    [[nodiscard]] Argv touch() const { return {"touch", directory / "done"}; }
    [[nodiscard]] bool touched() const { return std::filesystem::exists(directory / "done"); }
    void listens(std::uint16_t port) { world.strangers.push_back(world.new_listener(port)); }
};

TEST_F(CoverTest, TheCommandRunsBehindTheClosedGate) {
    listens(80);
    gate.on_close = [&] { EXPECT_FALSE(touched()); };
    gate.on_open = [&] { EXPECT_TRUE(touched()); };
    const auto covered = cover_it(touch());
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_TRUE(covered->outcome.ok()) << covered->outcome.message;
    EXPECT_EQ(covered->command.as_exit_code(), 0);
    EXPECT_EQ(covered->outcome.gated, PortSet{80});
    EXPECT_EQ(world.journal, (Events{"stage 80", "close", "open"}));
    Events names;
    for (const Step& step : covered->outcome.steps)
        names.push_back(step.name);
    EXPECT_EQ(names, (Events{"stage", "close", "drain", "command", "listen", "open"}));
}

TEST_F(CoverTest, TheCommandStartsWhenTheListenersAreDrained) {
    listens(80);
    world.half_open = {{.port = 80}};
    world.strangers[0].accept_queue = 4;
    world.later(20, [this] {
        EXPECT_FALSE(touched());
        world.half_open.clear();
        world.strangers[0].accept_queue = 0;
    });
    const auto covered = cover_it(touch());
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_EQ(covered->outcome.half_open, 1U);
    EXPECT_EQ(covered->outcome.queued, 4U);
    EXPECT_EQ(covered->outcome.left, 0U);
}

TEST_F(CoverTest, TheGateOpensWhenThePortsListenAgain) {
    options.ports = {80, 443};
    options.wait_timeout = 10s;
    listens(80);
    gate.on_close = [&] {
        world.strangers.clear();
        world.later(30, [this] { listens(80); }); // 443 did not listen before
    };
    gate.on_open = [&] { EXPECT_EQ(ports_of(world.strangers), PortSet{80}); };
    const auto covered = cover_it({"true"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_TRUE(covered->outcome.ok()) << covered->outcome.message;
}

// As a container that was told to stop, by a command that does not wait for it.
TEST_F(CoverTest, TheGateStaysClosedWhileTheOldServerListensYet) {
    options.wait_timeout = 20s;
    options.settle = 20s;
    listens(80);
    const std::uint64_t old = world.strangers[0].cookie;
    gate.on_close = [&] {
        world.later(30, [this] { listens(80); });
        world.later(60, [this] { world.strangers.erase(world.strangers.begin()); });
    };
    gate.on_open = [&] { EXPECT_FALSE(cookies_of(world.strangers, {80}).contains(old)); };
    const auto covered = cover_it({"true"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_TRUE(covered->outcome.ok()) << covered->outcome.message;
    EXPECT_EQ(ports_of(world.strangers), PortSet{80});
}

TEST_F(CoverTest, SocketsThatStayAreNotWaitedForLongerThanTheySettle) {
    options.wait_timeout = 50s;
    options.settle = 100ms;
    listens(80);
    Time changed = Time::max();
    gate.on_close = [&] {
        world.later(30, [&] {
            listens(80);
            changed = Clock::now();
        });
    };
    gate.on_open = [&] { EXPECT_GE(Clock::now() - changed, options.settle); };
    const auto covered = cover_it({"true"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_TRUE(covered->outcome.ok()) << covered->outcome.message;
    const auto listen = std::ranges::find(covered->outcome.steps, "listen", &Step::name);
    ASSERT_NE(listen, covered->outcome.steps.end());
    EXPECT_LT(listen->took, 40s);
    EXPECT_NE(listen->note.find("before"), std::string::npos) << listen->note;
}

TEST_F(CoverTest, WhereNothingListenedEveryPortMustListen) {
    options.ports = {80, 443};
    gate.on_close = [&] { listens(80); };
    const auto covered = cover_it({"true"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_EQ(covered->outcome.exit, Exit::failed);
    EXPECT_NE(covered->outcome.message.find("80,443 within 50ms"), std::string::npos)
        << covered->outcome.message;
}

TEST_F(CoverTest, ACommandThatFailedIsNotWaitedFor) {
    listens(80);
    options.wait_timeout = 20s;
    gate.on_close = [&] { world.strangers.clear(); };
    const Time before = Clock::now();
    const auto covered = cover_it({"sh", "-c", "exit 3"});
    EXPECT_LT(Clock::now() - before, 10s);
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_EQ(covered->outcome.exit, Exit::failed);
    EXPECT_EQ(covered->command.as_exit_code(), 3);
    EXPECT_NE(covered->outcome.message.find("exited with status 3"), std::string::npos)
        << covered->outcome.message;
}

TEST_F(CoverTest, ACommandThatFailedAndLeftTheServerAloneIsNoFailureOfTheGate) {
    listens(80);
    const auto covered = cover_it({"false"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_TRUE(covered->outcome.ok()) << covered->outcome.message;
    EXPECT_EQ(covered->command.as_exit_code(), 1);
}

TEST_F(CoverTest, WhatFailsBeforeTheCommandIsAnErrorAndTheCommandIsNotRun) {
    listens(80);
    gate.fail_stage = true;
    EXPECT_FALSE(cover_it(touch()));
    gate.fail_stage = false;
    gate.fail_close = true;
    EXPECT_FALSE(cover_it(touch()));
    gate.fail_close = false;
    gate.on_close = [&] { sockets.broken = true; };
    EXPECT_FALSE(cover_it(touch()));
    EXPECT_FALSE(touched());
    EXPECT_EQ(gate.opens, 1);
}

TEST_F(CoverTest, ACommandThatCannotBeStartedIsAnError) {
    listens(80);
    const auto covered = cover_it({directory / "missing"});
    ASSERT_FALSE(covered);
    EXPECT_NE(covered.error().message.find("missing"), std::string::npos) << covered.error().message;
    EXPECT_EQ(gate.closes, 0);
}

// The kernel refuses what looked like a program.
TEST_F(CoverTest, ACommandThatTurnsOutToBeNoProgramOpensTheGate) {
    listens(80);
    const std::string path = directory / "empty";
    std::ofstream(path).close();
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    const auto covered = cover_it({path});
    ASSERT_FALSE(covered);
    EXPECT_NE(covered.error().message.find("must begin with #!"), std::string::npos)
        << covered.error().message;
    EXPECT_EQ(world.journal.back(), "open");
}

TEST_F(CoverTest, TheLeaseIsRenewedWhileTheCommandRuns) {
    listens(80);
    options.lease = 15ms;
    // The command ends at the second renewal.
    ASSERT_EQ(mkfifo((directory / "go").c_str(), 0600), 0);
    const Fd fifo(open((directory / "go").c_str(), O_RDWR | O_CLOEXEC));
    gate.on_renew = [&] {
        if (gate.renewals == 2) {
            EXPECT_EQ(write(fifo.get(), "\n", 1), 1);
        }
    };
    const auto covered = cover_it({"sh", "-c", "read line <" + (directory / "go").string()});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_EQ(covered->command.as_exit_code(), 0);
    EXPECT_GE(gate.renewals, 2);
}

TEST_F(CoverTest, ALostLeaseIsTold) {
    listens(80);
    gate.lost = true;
    const auto covered = cover_it({"true"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_NE(covered->outcome.message.find("--max-window"), std::string::npos) << covered->outcome.message;
}

TEST_F(CoverTest, SignalsAreTheCommands) {
    listens(80);
    // Its file tells that it runs.
    const auto timer = loop->every(1ms, [&] {
        if (touched())
            ::kill(getpid(), SIGTERM);
    });
    ASSERT_TRUE(timer);
    const auto covered = cover_it({"sh", "-c", "touch " + (directory / "done").string() + "; exec sleep 30"});
    ASSERT_TRUE(covered) << covered.error().message;
    EXPECT_EQ(covered->command.as_exit_code(), 128 + SIGTERM);
}

} // namespace
} // namespace syngate::test
