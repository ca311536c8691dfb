// SPDX-License-Identifier: GPL-2.0-or-later
// What people are told: answers of an agent, and the log's line of an outcome.
#include "cli/status_text.hpp"

#include "gate/gate_json.hpp"
#include "reload/outcome.hpp"

#include <gtest/gtest.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;

Outcome reloaded() {
    Outcome outcome;
    outcome.action = "reload";
    outcome.gated = {80, 443};
    outcome.window = {.length = 4200us, .parked = 9, .replayed = 8, .dropped = 2};
    outcome.steps = {{"check", 30ms, ""}, {"swap", 1ms, "no change seen"}};
    outcome.half_open = 3;
    outcome.queued = 4;
    return outcome;
}

GateStatus gate() {
    GateStatus status;
    status.mode = "bpf";
    status.hook = "tcx";
    status.interfaces = {{"lo", "tcx", true}, {"tun0", "tcx", false}};
    status.verdicts = {{"gate_open", 12}, {"parked", 0}, {"park_full", 5000000000}};
    status.no_pins_because = "no bpffs here";
    return status;
}

bool contains(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

TEST(Describe, AnOutcome) {
    EXPECT_EQ(describe(to_json(reloaded())),
              "reload ok, window 4.2ms on 80,443: 9 parked, 8 replayed, 2 dropped");
    Outcome none;
    none.action = "reload";
    EXPECT_EQ(describe(to_json(none)), "reload ok, no window");
    none.exit = Exit::failed;
    none.message = "line 3 is wrong";
    EXPECT_EQ(describe(to_json(none)), "reload failed: line 3 is wrong, no window");
}

TEST(Describe, AnOpenedGateAndAPlainMessage) {
    const Window window{.length = 2s, .parked = 3, .replayed = 1, .expired = 2, .dropped = 4};
    EXPECT_EQ(describe(to_json(window)), "open after 2s: 3 parked, 1 replayed, 4 dropped, 2 expired");
    EXPECT_EQ(describe({{"ok", true}, {"message", "closed"}}), "closed");
    EXPECT_EQ(describe(nlohmann::json::object()), "");
}

TEST(Describe, AStatusWithoutAServer) {
    const std::string text = describe({{"gate", to_json(gate())}});
    EXPECT_TRUE(contains(text, "open, policy hold, bpf by tcx")) << text;
    EXPECT_TRUE(contains(text, "lo (tcx) tun0 (tcx, hold acts as drop)")) << text;
    EXPECT_TRUE(contains(text, "none: no bpffs here")) << text;
    EXPECT_TRUE(contains(text, "gate_open 12 park_full 5000000000")) << text;
    EXPECT_FALSE(contains(text, "parked 0")) << text;
    EXPECT_FALSE(contains(text, "server")) << text;
}

TEST(Describe, AStatusByIptables) {
    GateStatus by_rules = gate();
    by_rules.mode = "iptables";
    by_rules.hook = "nft";
    by_rules.interfaces = {};
    const std::string text = describe({{"gate", to_json(by_rules)}});
    EXPECT_TRUE(contains(text, "open, policy hold, iptables by nft")) << text;
    EXPECT_FALSE(contains(text, "pins")) << text;
    EXPECT_FALSE(contains(text, "\non ")) << text;
}

TEST(Describe, AStatusWithAServerAndAClosedGate) {
    GateStatus closed = gate();
    closed.closed = true;
    closed.policy = Policy::drop;
    closed.gated = {80};
    closed.lease_left = 1500ms;
    closed.pins = "/sys/fs/bpf/syngate/net-1/2";
    const std::string text =
        describe({{"gate", to_json(closed)},
                  {"agent", {{"version", "1.2"}, {"command", "run"}, {"pid", 42}, {"control", "/run/x"}}},
                  {"server",
                   {{"kind", "haproxy"},
                    {"command", "haproxy -f x"},
                    {"pid", 43},
                    {"retiring", {40, 41}},
                    {"ports", "80"},
                    {"not_covered", "8404"}}},
                  {"reloads", {{"done", 7}, {"failed", 1}}},
                  {"last", to_json(reloaded())}});
    for (const char* part :
         {"syngate 1.2 run, pid 42, /run/x", "haproxy -f x (pid 43, haproxy), ports 80 (not covered: 8404)",
          "2 older still finishing", "closed, policy drop", "ports 80, lease ends in 1.5s",
          "/sys/fs/bpf/syngate/net-1/2", "7, 1 failed; last: reload ok, window 4.2ms"})
        EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
}

TEST(OutcomeText, ALineTellsWindowAndSteps) {
    const std::string text = to_text(reloaded());
    for (const char* part : {"reload done", "window 4.2ms on 80,443", "3 half-open, 4 queued, 9 parked",
                             "check 30ms, swap 1ms (no change seen)"})
        EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
    EXPECT_FALSE(contains(text, "not waited for")) << text;
    Outcome failed = reloaded();
    failed.exit = Exit::failed;
    failed.message = "why";
    failed.gated.clear();
    failed.window.expired = 1;
    EXPECT_TRUE(contains(to_text(failed), "reload failed: why; no window")) << to_text(failed);
    EXPECT_TRUE(contains(to_text(failed), "1 expired")) << to_text(failed);
}

TEST(OutcomeJson, HasTheWindowAtItsTopLevel) {
    const nlohmann::json json = to_json(reloaded());
    EXPECT_EQ(json["ok"], true);
    EXPECT_EQ(json["exit"], 0);
    EXPECT_EQ(json["window_us"], 4200);
    EXPECT_EQ(json["gated"], "80,443");
    EXPECT_EQ(json["steps"][1], (nlohmann::json{{"name", "swap"}, {"us", 1000}, {"note", "no change seen"}}));
    EXPECT_EQ(json["lease_lost"], false);
}

TEST(StepTimer, StepsFollowEachOther) {
    Outcome outcome;
    StepTimer timer(outcome);
    timer.done("first");
    timer.done("second", "note");
    ASSERT_EQ(outcome.steps.size(), 2U);
    EXPECT_EQ(outcome.steps[1].name, "second");
    EXPECT_EQ(outcome.steps[1].note, "note");
    EXPECT_LT(outcome.steps[0].took + outcome.steps[1].took, 5s);
}

} // namespace
} // namespace syngate
