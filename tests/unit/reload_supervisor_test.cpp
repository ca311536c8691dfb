// SPDX-License-Identifier: GPL-2.0-or-later
// The supervisor: requests, signals, and how it ends. Real signals to this process, all else in memory.
#include "reload/supervisor.hpp"

#include "reload_fakes.hpp"

#include <fmt/format.h>
#include <unistd.h>

namespace syngate::test {
namespace {

using Json = nlohmann::json;

TEST(ReloadRequests, WhatComesWhileOneRunsIsOneMore) {
    ReloadRequests requests;
    EXPECT_FALSE(requests.pending());
    int answers = 0;
    const auto answer = [&](const Outcome&) { ++answers; };
    requests.add(false, "SIGHUP");
    requests.add(true, "the control socket", answer);
    requests.add(false, "watch", answer);
    EXPECT_TRUE(requests.pending());
    const auto batch = requests.take();
    EXPECT_TRUE(batch.restart);
    EXPECT_EQ(batch.reasons, (Events{"SIGHUP", "the control socket", "watch"}));
    EXPECT_EQ(batch.answers.size(), 2U);
    EXPECT_FALSE(requests.pending());
    requests.add(false, "SIGHUP");
    const auto next = requests.take();
    EXPECT_FALSE(next.restart);
    EXPECT_EQ(next.reasons.size(), 1U);
    EXPECT_TRUE(next.answers.empty());
}

struct SupervisorTest : FakeMachine {
    SupervisorOptions options;
    std::optional<Supervisor> supervisor;
    std::vector<Source> timers;
    std::vector<PortSet> claims;

    SupervisorTest() {
        options.protocol = quick();
        options.stop_timeout = 20s;
        options.claim = [this](const PortSet& ports) -> Result<void> {
            claims.push_back(ports);
            return {};
        };
        options.give_up = [this] { claims.emplace_back(); };
    }
    // Runs it; `then` is called from the loop once the server serves.
    Result<int> run(const std::function<void()>& then) {
        supervisor.emplace(*loop, gate, sockets, server, options);
        EXPECT_TRUE(supervisor->prepare());
        auto timer = loop->every(1ms, [this, then, begun = std::make_shared<bool>(false)] {
            if (!*begun && supervisor->status()["server"]["pid"].is_number()) {
                *begun = true;
                then();
            }
        });
        EXPECT_TRUE(timer);
        timers.push_back(std::move(*timer));
        return supervisor->run();
    }
    Json ask(const Json& request) {
        Json answer;
        supervisor->handle(request, [&](const Json& json) { answer = json; });
        return answer;
    }
    static void raise_to_us(int signal) { ::kill(getpid(), signal); }
    static void stop_us() { raise_to_us(SIGTERM); }
};

TEST_F(SupervisorTest, SigtermIsAGracefulStopWithTheServersStatus) {
    server.on_tell = [&](Generation g, int) { world.end(g, {.signalled = false, .value = 7}); };
    const auto status = run(stop_us);
    ASSERT_TRUE(status);
    EXPECT_EQ(*status, 7);
    EXPECT_EQ(world.journal, (Events{"start", "tell 101 USR1"}));
    EXPECT_EQ(claims, (std::vector<PortSet>{{80}, {}}));
}

// Another agent may take over while open connections finish, and not before nobody listens.
TEST_F(SupervisorTest, PortsAreForOthersOnceNobodyListensAnyMore) {
    bool early = false;
    server.on_tell = [&](Generation g, int) {
        auto later = loop->after(50ms, [&, g] {
            early = claims.size() > 1;
            world.listening.erase(g);
        });
        timers.push_back(std::move(*later));
    };
    options.give_up = [this] {
        claims.emplace_back();
        world.end(101);
    };
    EXPECT_EQ(run(stop_us).value_or(-1), 0);
    EXPECT_FALSE(early);
    EXPECT_EQ(claims, (std::vector<PortSet>{{80}, {}}));
}

// Told to go by a reload that the stop came into, it may listen longer than the new one.
TEST_F(SupervisorTest, PortsAreNotForOthersWhileAnOlderGenerationListens) {
    server.on_tell = [&](Generation g, int) {
        if (g == 101)
            world.listening.erase(g); // and finishes what it has
        else
            world.end(g);
    };
    options.events.serving = [&](Generation g, const Outcome&) {
        if (g != 102)
            return;
        world.listen(101, {80});
        auto later = loop->after(50ms, [&] { world.end(101); });
        timers.push_back(std::move(*later));
        stop_us();
    };
    options.give_up = [this] {
        claims.emplace_back();
        EXPECT_TRUE(world.ended.contains(101));
    };
    EXPECT_EQ(run([] { raise_to_us(SIGHUP); }).value_or(-1), 0);
    EXPECT_EQ(claims.back(), PortSet{});
}

struct SuccessionTest : SupervisorTest {
    bool waits = true;
    SuccessionTest() {
        server.on_tell = [&](Generation g, int) { world.listening.erase(g); }; // and finishes what it has
        options.successor = [this](const PortSet& ports) { return waits && ports == PortSet{80}; };
        gate.on_open = [this] {
            listening = ports_of(world.strangers);
            world.end(101);
        };
        options.give_up = [this] {
            claims.emplace_back();
            EXPECT_TRUE(gate.closed);
            EXPECT_TRUE(world.listening[101].empty());
        };
    }
    std::optional<PortSet> listening; // of others, when the gate opened
};

TEST_F(SuccessionTest, TheGateIsClosedUntilTheSuccessorsServerListens) {
    options.give_up = [this, give_up = options.give_up] {
        give_up();
        world.later(30, [this] { world.strangers.push_back(world.new_listener(80)); });
    };
    EXPECT_EQ(run(stop_us).value_or(-1), 0);
    EXPECT_EQ(listening, PortSet{80});
    EXPECT_EQ(world.journal, (Events{"start", "stage 80", "close", "tell 101 USR1", "open"}));
}

TEST_F(SuccessionTest, ASuccessorThatDiesKeepsNobodyWaiting) {
    options.protocol.start_timeout = 100s;
    options.give_up = [this, give_up = options.give_up] {
        give_up();
        waits = false;
    };
    const Time before = Clock::now();
    EXPECT_EQ(run(stop_us).value_or(-1), 0);
    EXPECT_LT(Clock::now() - before, 50s);
    EXPECT_EQ(listening, PortSet{});
}

TEST_F(SuccessionTest, WithoutOneTheGateStaysOpen) {
    waits = false;
    server.on_tell = [&](Generation g, int) { world.end(g); };
    options.give_up = [] {};
    EXPECT_EQ(run(stop_us).value_or(-1), 0);
    EXPECT_EQ(world.journal, (Events{"start", "tell 101 USR1"}));
}

TEST_F(SuccessionTest, ASecondSignalOpensAtOnce) {
    options.protocol.start_timeout = 100s;
    options.give_up = [] { raise_to_us(SIGTERM); };
    const Time before = Clock::now();
    (void)run(stop_us);
    EXPECT_LT(Clock::now() - before, 50s);
    EXPECT_EQ(listening, PortSet{});
}

// It serves beside the gate: a server of its own that could not claim its ports hands over nothing.
TEST_F(SuccessionTest, WhatIsNotOursIsNotClosed) {
    server.on_tell = [&](Generation g, int) { world.end(g); };
    options.claim = [](const PortSet&) -> Result<void> { return failure(Exit::busy, "taken"); };
    options.give_up = [] {};
    EXPECT_FALSE(run([] {}));
    EXPECT_EQ(gate.closes, 0);
}

TEST_F(SupervisorTest, WhoFollowsIsToldWhatGoesOn) {
    Events told;
    options.events.serving = [&](Generation g, const Outcome& last) {
        told.push_back(fmt::format("{} {} {}", g, last.action, last.ok()));
        if (g == 102)
            stop_us();
    };
    options.events.reloading = [&](const std::string& action) { told.push_back(action); };
    options.events.stopping = [&] { told.emplace_back("stopping"); };
    EXPECT_EQ(run([] { raise_to_us(SIGHUP); }).value_or(-1), 0);
    EXPECT_EQ(told, (Events{"101 start true", "reload", "102 reload true", "stopping"}));
}

TEST_F(SupervisorTest, ASecondSignalEndsItAtOnce) {
    server.on_tell = [](Generation, int) { raise_to_us(SIGINT); };
    const Time before = Clock::now();
    const auto status = run(stop_us);
    EXPECT_LT(Clock::now() - before, 10s);
    EXPECT_EQ(status.value_or(-1), 128 + SIGKILL);
    EXPECT_EQ(world.journal, (Events{"start", "tell 101 USR1", "tell 101 TERM", "kill 101"}));
}

TEST_F(SupervisorTest, AServerThatDoesNotStopIsEndedThenKilled) {
    options.stop_timeout = 30ms;
    server.on_tell = [](Generation, int) {};
    EXPECT_EQ(run(stop_us).value_or(-1), 128 + SIGKILL);
    EXPECT_EQ(world.journal, (Events{"start", "tell 101 USR1", "tell 101 TERM", "kill 101"}));
}

TEST_F(SupervisorTest, TheServersOwnGracefulStopIsTheAgents) {
    server.on_tell = [this](Generation generation, int) {
        raise_to_us(SIGUSR1); // one that comes later is no reason to hurry
        auto timer = loop->after(20ms, [this, generation] { world.end(generation); });
        timers.push_back(std::move(*timer));
    };
    EXPECT_EQ(run([] { raise_to_us(SIGUSR1); }).value_or(-1), 0);
    EXPECT_EQ(world.journal, (Events{"start", "tell 101 USR1"}));
}

TEST_F(SupervisorTest, PortsThatAreNotNamedAreTold) {
    options.protocol.ports = {443};
    run([this] {
        EXPECT_EQ(supervisor->status()["server"]["not_covered"], "80");
        stop_us();
    });
    options.protocol.ports = {80};
    run([this] {
        EXPECT_EQ(supervisor->status()["server"]["not_covered"], "");
        stop_us();
    });
}

TEST_F(SupervisorTest, AServerThatDiesEndsItWithTheServersStatus) {
    const auto status = run([&] {
        world.end(101, {.signalled = true, .value = SIGSEGV});
        raise_to_us(SIGWINCH); // as SIGCHLD would, it wakes the loop
    });
    EXPECT_EQ(status.value_or(-1), 128 + SIGSEGV);
}

TEST_F(SupervisorTest, AFirstStartThatFailsIsAnError) {
    server.cannot_start = true;
    const auto status = run([] {});
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("no such program"), std::string::npos);
    EXPECT_TRUE(claims.empty());
}

TEST_F(SupervisorTest, PortsOfAnotherAgentEndItAndItsServer) {
    options.claim = [](const PortSet&) -> Result<void> { return failure(Exit::busy, "taken"); };
    const auto status = run([] {});
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().exit, Exit::busy);
    EXPECT_TRUE(world.ended.contains(101));
}

TEST_F(SupervisorTest, SighupReloads) {
    world.on_event = [](const std::string& event) {
        if (event == "open")
            stop_us();
    };
    EXPECT_EQ(run([] { raise_to_us(SIGHUP); }).value_or(-1), 0);
    EXPECT_EQ(world.journal, (Events{"start", "check", "start beside", "stage 80", "close", "tell 101 USR1",
                                     "open", "tell 102 USR1"}));
}

TEST_F(SupervisorTest, OtherSignalsAreTheServers) {
    world.on_event = [](const std::string& event) {
        if (event == "tell 101 WINCH")
            stop_us();
    };
    EXPECT_EQ(run([] { raise_to_us(SIGWINCH); }).value_or(-1), 0);
    EXPECT_TRUE(world.has("tell 101 WINCH"));
}

TEST_F(SupervisorTest, ARequestIsAnsweredWithTheOutcome) {
    Json answer;
    const auto status = run([&] {
        supervisor->handle({{"verb", "reload"}}, [&](const Json& json) {
            answer = json;
            stop_us();
        });
        EXPECT_TRUE(answer.is_null()) << "answered before anything was done";
    });
    EXPECT_EQ(status.value_or(-1), 0);
    EXPECT_EQ(answer.value("ok", false), true);
    EXPECT_EQ(answer.value("action", ""), "reload");
    EXPECT_EQ(answer.value("window_us", 0), 5000);
    EXPECT_EQ(answer.value("gated", ""), "80");
}

TEST_F(SupervisorTest, RequestsThatComeDuringAReloadAreOneMore) {
    std::vector<std::string> actions;
    const auto answered = [&](const Json& json) {
        actions.push_back(json.value("action", ""));
        if (actions.size() == 3)
            stop_us();
    };
    world.on_event = [&](const std::string& event) {
        if (event == "start beside" && actions.empty()) {
            EXPECT_TRUE(supervisor->status().value("busy", false));
            supervisor->handle({{"verb", "restart"}}, answered);
            supervisor->handle({{"verb", "reload"}}, answered);
            EXPECT_EQ(ask({{"verb", "close"}}).value("exit", 0), static_cast<int>(Exit::busy));
        }
    };
    EXPECT_EQ(run([&] { supervisor->handle({{"verb", "reload"}}, answered); }).value_or(-1), 0);
    EXPECT_EQ(actions, (Events{"reload", "restart", "restart"}));
    EXPECT_EQ(std::ranges::count(world.journal, "check"), 2);
    EXPECT_EQ(supervisor->status()["reloads"]["done"], 2);
}

TEST_F(SupervisorTest, AFailedReloadIsAnsweredCountedAndSurvived) {
    server.bad_configuration = true;
    Json answer;
    const auto status = run([&] {
        supervisor->handle({{"verb", "reload"}}, [&](const Json& json) {
            answer = json;
            stop_us();
        });
    });
    EXPECT_EQ(status.value_or(-1), 0);
    EXPECT_EQ(answer.value("ok", true), false);
    EXPECT_EQ(answer.value("exit", 0), 1);
    EXPECT_NE(answer.value("message", "").find("line 3 is wrong"), std::string::npos);
    EXPECT_EQ(supervisor->status()["reloads"]["failed"], 1);
    EXPECT_EQ(supervisor->status()["last"]["ok"], false);
}

TEST_F(SupervisorTest, ARestartThatDoesNotComeBackEndsItAndIsAnsweredFirst) {
    Json answer;
    const auto status = run([&] {
        server.cannot_start = true;
        supervisor->handle({{"verb", "restart"}}, [&](const Json& json) { answer = json; });
    });
    EXPECT_EQ(status.value_or(-1), static_cast<int>(Exit::failed));
    EXPECT_EQ(answer.value("ok", true), false);
}

TEST_F(SupervisorTest, StoppedInTheMiddleOfARestartItStillStopsGracefully) {
    server.on_tell = [&](Generation g, int) {
        stop_us();
        world.later(20, [this, g] { world.end(g); });
    };
    const auto status = run([&] { supervisor->handle({{"verb", "restart"}}, [](const Json&) {}); });
    EXPECT_TRUE(status);
    EXPECT_TRUE(world.ended.contains(101));
    EXPECT_FALSE(world.ended[101].signalled);
    EXPECT_FALSE(world.has("start beside"));
}

TEST_F(SupervisorTest, ClosedByHandItRefusesToReloadUntilOpened) {
    Events messages;
    const auto status = run([&] {
        EXPECT_TRUE(ask({{"verb", "close"}, {"lease", "5s"}}).value("ok", false));
        EXPECT_TRUE(gate.closed);
        EXPECT_EQ(gate.leases, std::vector<Duration>{5s});
        EXPECT_TRUE(supervisor->status().value("closed_by_hand", false));
        EXPECT_EQ(ask({{"verb", "close"}}).value("exit", 0), static_cast<int>(Exit::busy));
        supervisor->handle({{"verb", "reload"}}, [&](const Json& json) {
            messages.push_back(json.value("message", ""));
            EXPECT_EQ(json.value("exit", 0), static_cast<int>(Exit::busy));
            const Json opened = ask({{"verb", "open"}});
            EXPECT_TRUE(opened.value("ok", false));
            EXPECT_EQ(opened.value("parked", 0), 7);
            EXPECT_FALSE(ask({{"verb", "open"}}).value("ok", true));
            stop_us();
        });
    });
    EXPECT_EQ(status.value_or(-1), 0);
    EXPECT_EQ(messages.size(), 1U);
    EXPECT_FALSE(world.has("check"));
}

TEST_F(SupervisorTest, StoppingOpensWhatWasClosedByHand) {
    EXPECT_EQ(run([&] {
                  ask({{"verb", "close"}});
                  stop_us();
              }).value_or(-1),
              0);
    EXPECT_EQ(world.journal, (Events{"start", "stage 80", "close", "open", "tell 101 USR1"}));
}

TEST_F(SupervisorTest, ClosingOtherPortsClaimsThemAsWell) {
    EXPECT_EQ(run([&] {
                  EXPECT_TRUE(ask({{"verb", "close"}, {"ports", "443"}}).value("ok", false));
                  stop_us();
              }).value_or(-1),
              0);
    EXPECT_TRUE(world.has("stage 443"));
    EXPECT_EQ(claims, (std::vector<PortSet>{{80}, {80, 443}, {}}));
}

TEST_F(SupervisorTest, BadRequestsAreRefusedAndChangeNothing) {
    const int usage = static_cast<int>(Exit::usage);
    EXPECT_EQ(run([&] {
                  for (const char* lease : {"0", "-1s", "soon"})
                      EXPECT_EQ(ask({{"verb", "close"}, {"lease", lease}}).value("exit", 0), usage) << lease;
                  EXPECT_EQ(ask({{"verb", "close"}, {"ports", "0"}}).value("exit", 0), usage);
                  EXPECT_EQ(ask({{"verb", "dance"}}).value("exit", 0), usage);
                  EXPECT_EQ(ask(Json::object()).value("exit", 0), usage);
                  stop_us();
              }).value_or(-1),
              0);
    EXPECT_EQ(gate.closes, 0);
}

TEST_F(SupervisorTest, StatusNamesTheServer) {
    server.on_tell = [&](Generation g, int) {
        world.listening.erase(g);
        if (supervisor->status().value("busy", false))
            return; // 101 goes on with what it has
        world.end(101);
        world.end(g);
    };
    Json during;
    const auto status = run([&] {
        supervisor->handle({{"verb", "reload"}}, [&](const Json&) {
            during = ask({{"verb", "status"}});
            stop_us();
        });
    });
    EXPECT_EQ(status.value_or(-1), 0);
    EXPECT_EQ(during["server"]["pid"], 102);
    EXPECT_EQ(during["server"]["retiring"], Json::array({101}));
    EXPECT_EQ(during["server"]["ports"], "80");
    EXPECT_EQ(during["server"]["command"], "server");
    EXPECT_EQ(during["gate"]["closed"], false);
}

struct ManualGateTest : FakeMachine {
    ManualGate manual{*loop, gate};
};

TEST_F(ManualGateTest, OpensByItselfWhenTheLeaseEnds) {
    ASSERT_TRUE(manual.close({80}, Policy::hold, 20ms));
    EXPECT_EQ(manual.close({80}, Policy::hold, 20ms).error().exit, Exit::busy);
    EXPECT_TRUE(loop->run_until([&] { return !manual.is_closed(); }, Clock::now() + 5s));
    EXPECT_EQ(gate.opens, 1);
    EXPECT_EQ(gate.renewals, 0);
    EXPECT_EQ(manual.open().error().exit, Exit::failed);
}

TEST_F(ManualGateTest, EndsWithTheLongestWindow) {
    gate.longest = 10ms;
    ASSERT_TRUE(manual.close({80}, Policy::hold, 30s));
    EXPECT_TRUE(loop->run_until([&] { return !manual.is_closed(); }, Clock::now() + 5s));
}

TEST_F(ManualGateTest, OpenedByHandTheLeaseEndsNothing) {
    ASSERT_TRUE(manual.close({80}, Policy::drop, 10ms));
    const auto window = manual.open();
    ASSERT_TRUE(window);
    EXPECT_EQ(window->replayed, 6U);
    ASSERT_TRUE(manual.close({80}, Policy::drop, 10s));
    EXPECT_FALSE(loop->run_until([&] { return !manual.is_closed(); }, Clock::now() + 40ms));
    EXPECT_TRUE(manual.open());
}

TEST_F(ManualGateTest, WhatCannotBeClosedIsNotClosed) {
    EXPECT_EQ(manual.close({}, Policy::hold, 1s).error().exit, Exit::usage);
    gate.fail_stage = true;
    EXPECT_FALSE(manual.close({80}, Policy::hold, 1s));
    gate.fail_stage = false;
    gate.fail_close = true;
    EXPECT_FALSE(manual.close({80}, Policy::hold, 1s));
    EXPECT_FALSE(manual.is_closed());
}

} // namespace
} // namespace syngate::test
