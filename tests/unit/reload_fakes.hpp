// SPDX-License-Identifier: GPL-2.0-or-later
// A gate, sockets and a server that exist in memory only. What they are told is written into one journal,
// so that a test can judge the order across all three.
#pragma once

#include "event/loop.hpp"
#include "gate/gate.hpp"
#include "net/sock_diag.hpp"
#include "reload/listening.hpp"
#include "reload/protocol.hpp"
#include "reload/steerer.hpp"
#include "server/server.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

namespace syngate::test {

using namespace std::chrono_literals;
using Events = std::vector<std::string>;

// The machine as the three fakes share it. Nothing in it takes time: what shall happen later happens at a
// later look, and the code under test looks as long as it waits.
struct World {
    Events journal;
    std::function<void(const std::string&)> on_event = [](const std::string&) {};
    std::map<Generation, Listeners> listening;
    std::map<Generation, ExitStatus> ended;
    Listeners strangers;
    std::vector<HalfOpen> half_open;
    std::size_t connected = 0;
    std::uint16_t connected_port = 0; // theirs; 0: any that is asked for
    int connected_asked = 0;
    int looks = 0;
    std::uint64_t next_cookie = 1;

    void event(const std::string& what) {
        journal.push_back(what);
        on_event(what);
    }
    void look() {
        ++looks;
        for (auto it = due_.begin(); it != due_.end() && it->first <= looks; it = due_.begin()) {
            const auto action = std::move(it->second);
            due_.erase(it);
            action();
        }
    }
    void later(int looks_from_now, std::function<void()> action) {
        due_.emplace(looks + looks_from_now, std::move(action));
    }
    Listener new_listener(std::uint16_t port) {
        Listener listener;
        listener.port = port;
        listener.cookie = next_cookie++;
        listener.inode = static_cast<std::uint32_t>(1000 + listener.cookie);
        return listener;
    }
    void listen(Generation generation, const PortSet& ports) {
        for (const std::uint16_t port : ports)
            listening[generation].push_back(new_listener(port));
    }
    void end(Generation generation, ExitStatus status = {}) {
        listening.erase(generation);
        ended[generation] = status;
    }
    [[nodiscard]] bool has(const std::string& what) const {
        return std::ranges::find(journal, what) != journal.end();
    }

private:
    std::multimap<int, std::function<void()>> due_;
};

class FakeGate final : public Gate {
public:
    explicit FakeGate(World& world) : world_(world) {}

    Result<void> complete() override { return on_complete(); }
    Result<void> stage(const PortSet& ports, Policy policy) override {
        EXPECT_FALSE(closed) << "staged while closed";
        world_.event("stage " + format_ports(ports) + (policy == Policy::drop ? " drop" : ""));
        if (fail_stage)
            return failure(Exit::failed, "stage is broken");
        return {};
    }
    Result<void> close(Duration lease) override {
        EXPECT_FALSE(closed) << "closed twice";
        world_.event("close");
        if (fail_close)
            return failure(Exit::failed, "close is broken");
        closed = true;
        ++closes;
        leases.push_back(lease);
        on_close();
        return {};
    }
    bool renew(Duration lease) override {
        EXPECT_TRUE(closed) << "renewed while open";
        ++renewals;
        leases.push_back(lease);
        on_renew();
        return !lost;
    }
    [[nodiscard]] bool is_closed() const override { return closed; }
    Window open() override {
        EXPECT_TRUE(closed) << "opened twice";
        world_.event("open");
        on_open();
        closed = false;
        ++opens;
        Window window;
        window.length = 5ms;
        window.parked = 7;
        window.replayed = 6;
        window.lease_lost = lost;
        return window;
    }
    [[nodiscard]] GateStatus status() const override {
        GateStatus status;
        status.mode = "bpf";
        status.hook = "tcx";
        status.closed = closed;
        status.lease_left = closed ? std::min(leases.back(), longest) : Duration::zero();
        return status;
    }

    bool fail_stage = false;
    bool fail_close = false;
    bool lost = false;
    bool closed = false;
    int closes = 0;
    int opens = 0;
    int renewals = 0;
    std::vector<Duration> leases;
    Duration longest = 30s;
    std::function<Result<void>()> on_complete = [] { return Result<void>{}; };
    std::function<void()> on_close = [] {};
    std::function<void()> on_open = [] {};
    std::function<void()> on_renew = [] {};

private:
    World& world_;
};

class FakeSockets final : public Sockets {
public:
    explicit FakeSockets(World& world) : world_(world) {}

    Result<std::vector<Listener>> listeners() override {
        world_.look();
        if (broken)
            return failure(Exit::failed, "sock_diag is broken");
        Listeners all = world_.strangers;
        for (const auto& [generation, listeners] : world_.listening)
            all.insert(all.end(), listeners.begin(), listeners.end());
        return all;
    }
    Result<std::vector<HalfOpen>> half_open(const PortSet& ports) override {
        world_.look();
        if (broken)
            return failure(Exit::failed, "sock_diag is broken");
        auto found = world_.half_open;
        std::erase_if(found, [&](const HalfOpen& h) { return !ports.contains(h.port); });
        return found;
    }
    Result<std::size_t> connected(const PortSet& ports, const std::set<std::uint32_t>* among) override {
        world_.look();
        ++world_.connected_asked;
        if (world_.connected_port != 0 && !ports.contains(world_.connected_port))
            return 0;
        return among ? among->size() : world_.connected;
    }

    bool broken = false;

private:
    World& world_;
};

// The journal has who gets new connections: "steer 80 to 1 2, 443 to 3" by cookie, "release".
class FakeSteering final : public Steering {
public:
    explicit FakeSteering(World& world) : world_(world) {}

    Result<void> steer(const std::vector<SteerRule>& rules) override {
        std::string told;
        for (const SteerRule& rule : rules) {
            told += (told.empty() ? "steer " : ", ") + std::to_string(rule.at.port) + " to";
            for (const Listener& to : rule.to)
                told += " " + std::to_string(to.cookie);
        }
        world_.event(told);
        if (fail_at == ++asked)
            return failure(Exit::failed, "the socket is gone");
        steered = rules;
        return {};
    }
    void release() override {
        world_.event("release");
        steered.clear();
    }
    [[nodiscard]] SteeringStatus status() const override { return {}; }

    int asked = 0;
    int fail_at = 0;
    std::vector<SteerRule> steered;

private:
    World& world_;
};

// Generations are 101, 102, ... Unless told otherwise each listens at once on `ports`, and ends at once
// when it is told its release signal.
class FakeServer final : public Server {
public:
    explicit FakeServer(World& world) : world_(world) {
        how.kind = "other";
        how.start = {"server"};
        how.reload = ReloadHow::overlap;
        how.release_signal = SIGUSR1;
        how.reload_signal = SIGHUP;
        how.graceful = true;
    }

    [[nodiscard]] const Recipe& recipe() const override { return how; }
    Result<void> check(Time, const std::function<bool()>&) override {
        world_.event("check");
        if (bad_configuration)
            return failure(Exit::failed, "line 3 is wrong");
        return {};
    }
    Result<Generation> start(bool beside) override {
        world_.event(beside ? "start beside" : "start");
        if (cannot_start)
            return failure(Exit::failed, "no such program");
        const Generation generation = ++last_;
        on_start(generation);
        return generation;
    }
    [[nodiscard]] std::optional<ExitStatus> exited(Generation generation) const override {
        world_.look();
        const auto found = world_.ended.find(generation);
        return found == world_.ended.end() ? std::nullopt : std::optional(found->second);
    }
    Result<std::vector<Listener>> listeners(Generation generation) override {
        world_.look();
        if (broken)
            return failure(Exit::failed, "/proc is broken");
        return world_.listening[generation];
    }
    Result<std::map<pid_t, std::set<std::uint32_t>>> holders(Generation generation) override {
        world_.look();
        if (workers)
            return *workers;
        std::map<pid_t, std::set<std::uint32_t>> held;
        for (const Listener& listener : world_.listening[generation])
            held[generation].insert(listener.inode);
        return held;
    }
    Result<std::set<std::uint32_t>> sockets(Generation) override {
        world_.look();
        return connections;
    }
    [[nodiscard]] bool is_ready(Generation) override {
        world_.look();
        return ready;
    }
    void tell(Generation generation, int signal) override {
        world_.event("tell " + std::to_string(generation) + " " + sigabbrev_np(signal));
        on_tell(generation, signal);
    }
    void kill(Generation generation) override {
        world_.event("kill " + std::to_string(generation));
        world_.end(generation, {.signalled = true, .value = SIGKILL});
    }

    [[nodiscard]] std::uint16_t backing_port(Generation generation) const override {
        return backing.empty() ? std::uint16_t{0}
                               : backing[static_cast<std::size_t>(generation) % backing.size()];
    }
    void forget(Generation generation) override { forgotten.push_back(generation); }

    Recipe how;
    std::vector<Generation> forgotten;
    std::vector<std::uint16_t> backing; // given in turn; on_start is to listen there
    PortSet ports = {80};
    bool bad_configuration = false;
    bool cannot_start = false;
    std::set<std::uint32_t> connections; // inodes, of whichever generation is asked
    bool ready = true;
    bool broken = false;
    std::optional<std::map<pid_t, std::set<std::uint32_t>>> workers;
    std::function<void(Generation)> on_start = [this](Generation g) { world_.listen(g, ports); };
    std::function<void(Generation, int)> on_tell = [this](Generation g, int signal) {
        if (signal == how.release_signal)
            world_.end(g);
    };

private:
    World& world_;
    Generation last_ = 100;
};

// Whatever a test does: at its end the gate is open, and was opened as often as closed.
struct FakeMachine : testing::Test {
    std::unique_ptr<Loop> loop = *Loop::make();
    World world;
    FakeGate gate{world};
    FakeSockets sockets{world};
    FakeServer server{world};
    FakeSteering steering{world};
    Steerer steerer{steering, sockets};

    static ProtocolOptions quick() {
        ProtocolOptions options;
        options.start_timeout = 500ms;
        options.swap_timeout = 50ms;
        options.end_timeout = 50ms;
        options.settle = 20ms;
        options.drain.handshake = 50ms;
        return options;
    }
    void TearDown() override {
        EXPECT_FALSE(gate.closed);
        EXPECT_EQ(gate.closes, gate.opens);
        EXPECT_TRUE(!steerer.flips().empty() || steering.steered.empty());
    }
};

struct ProtocolTest : FakeMachine {
    ProtocolOptions options = quick();
    std::optional<Protocol> protocol;

    // Brings generation 101 up. The journal begins after it.
    void serve(const PortSet& ports = {80}) {
        server.ports = ports;
        protocol.emplace(*loop, gate, sockets, server, options);
        const Outcome started = protocol->start();
        ASSERT_TRUE(started.ok()) << started.message;
        ASSERT_EQ(protocol->current(), 101);
        world.journal.clear();
    }
    void serve_flipping(Flip flip, const PortSet& ports = {80}) {
        options.flip = flip;
        options.steerer = &steerer;
        serve(ports);
    }
    void serve_by(ReloadHow how) {
        server.how.reload = how;
        serve();
    }
    // 101 serves as before and was never told anything.
    void expect_old_untouched() {
        EXPECT_EQ(protocol->current(), 101);
        EXPECT_FALSE(world.ended.contains(101));
        EXPECT_EQ(ports_of(world.listening[101]), PortSet{80});
        for (const std::string& event : world.journal)
            EXPECT_FALSE(event.starts_with("tell")) << event;
        EXPECT_TRUE(protocol->retiring().empty());
    }
    static Events step_names(const Outcome& outcome) {
        Events names;
        for (const Step& step : outcome.steps)
            names.push_back(step.name);
        return names;
    }
};

constexpr ReloadHow every_way[] = {ReloadHow::overlap, ReloadHow::signal, ReloadHow::restart};

} // namespace syngate::test
