// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/registry.hpp"
#include "control/registry_protocol.hpp"

#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>

namespace syngate {
namespace {

using namespace std::chrono_literals;

// A forked process that talks to the test by one byte at a time, and is killed and reaped with it.
class Process {
public:
    explicit Process(const std::function<void(int channel)>& work) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
            return;
        channel_ = Fd(ends[0]);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            channel_.reset();
            work(ends[1]);
            ::_exit(0);
        }
        ::close(ends[1]);
    }
    Process(Process&& other) noexcept
        : pid_(std::exchange(other.pid_, -1)), channel_(std::move(other.channel_)) {}
    ~Process() { end(); }

    void end() {
        if (pid_ > 0) {
            ::kill(pid_, SIGKILL);
            ::waitpid(pid_, nullptr, 0);
        }
        pid_ = -1;
    }
    void stop() const {
        ::kill(pid_, SIGSTOP);
        ::waitpid(pid_, nullptr, WUNTRACED);
    }
    // '!' when nothing comes.
    [[nodiscard]] char read() const {
        char byte = '!';
        if (wait_for(channel_.get(), POLLIN, Clock::now() + 10s) && ::read(channel_.get(), &byte, 1) != 1)
            byte = '!';
        return byte;
    }
    [[nodiscard]] pid_t pid() const { return pid_; }

private:
    pid_t pid_ = -1;
    Fd channel_;
};

void tell(int channel, char byte) {
    [[maybe_unused]] const auto size = ::write(channel, &byte, 1);
}

// Until it is killed.
void serve(Loop& loop) {
    loop.run_until([] { return false; }, Clock::now() + 60s);
}

// An agent that claims and stays: 'y' or 'n'.
Process agent(const PortSet& ports) {
    return Process([&](int channel) {
        const auto loop = std::move(*Loop::make());
        const auto registry = Registry::announce(*loop, "run", "/run/other.sock");
        tell(channel, registry && (*registry)->claim(ports) ? 'y' : 'n');
        serve(*loop);
    });
}

// A network namespace for each test.
class Agents : public testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "needs root for a network namespace";
        home_ = Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
        if (::unshare(CLONE_NEWNET) < 0)
            GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
        loop_ = std::move(*Loop::make());
    }
    void TearDown() override {
        if (loop_) {
            ASSERT_EQ(::setns(home_.get(), CLONE_NEWNET), 0);
        }
    }
    std::unique_ptr<Registry> announce(const std::string& command = "run") {
        return std::move(*Registry::announce(*loop_, command, "/run/ours.sock"));
    }
    Fd home_;
    std::unique_ptr<Loop> loop_;
};

// Listens like the agent with this id, for what a real one cannot be made to do.
Fd listen_as(std::uint64_t id, int type = SOCK_SEQPACKET, int backlog = 16) {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const auto name = abstract_address(registry::agent_name(id));
    if (::bind(fd.get(), name.get(), name.length) < 0 || ::listen(fd.get(), backlog) < 0)
        return {};
    return fd;
}

registry::Statement statement_of(std::uint64_t id, const PortSet& ports, const PortSet& claiming = {}) {
    return {.peer = {.id = id,
                     .pid = 1,
                     .control_path = "/run/fake.sock",
                     .command = "run",
                     .ports = ports,
                     .since_ns = 1},
            .claiming = claiming};
}

void answer_next(const Fd& listener, const std::string& message) {
    const Fd fd(::accept(listener.get(), nullptr, nullptr));
    ::send(fd.get(), message.data(), message.size(), MSG_NOSIGNAL);
}

TEST_F(Agents, FindEachOtherUntilTheyEnd) {
    EXPECT_EQ(find_peers()->size(), 0U);
    const auto ours = announce("exec");
    EXPECT_EQ(find_peers()->size(), 1U) << "ourselves, with nobody running the loop";
    Process other = agent({80, 443});
    ASSERT_EQ(other.read(), 'y');
    const auto peers = find_peers();
    ASSERT_TRUE(peers) << peers.error().message;
    ASSERT_EQ(peers->size(), 2U);
    const Peer& peer = (*peers)[(*peers)[0].id == ours->id() ? 1 : 0];
    EXPECT_EQ(peer.pid, other.pid());
    EXPECT_EQ(peer.command, "run");
    EXPECT_EQ(peer.control_path, "/run/other.sock");
    EXPECT_EQ(format_ports(peer.ports), "80,443");
    EXPECT_LE(peer.since_ns, to_ns(Clock::now()));
    EXPECT_TRUE(is_alive(peer.id));
    EXPECT_TRUE(is_alive(ours->id()));
    other.end();
    EXPECT_FALSE(is_alive(peer.id));
    EXPECT_EQ(find_peers()->size(), 1U);
}

TEST_F(Agents, OfAnotherNetworkNamespaceDoNotCount) {
    Process other = agent({80});
    ASSERT_EQ(other.read(), 'y');
    const auto before = network_namespace();
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    EXPECT_NE(*before, *network_namespace());
    EXPECT_EQ(find_peers()->size(), 0U);
    EXPECT_TRUE(announce()->claim({80}));
}

// A gate around whatever a command does: agents come and go inside it, and another one stands not around the
// same.
TEST_F(Agents, ExecStandsAroundAgents) {
    Process inside = agent({80});
    ASSERT_EQ(inside.read(), 'y');
    const auto around = announce("exec");
    EXPECT_TRUE(around->claim({80}));
    const auto second = announce("exec");
    EXPECT_FALSE(second->claim({80}));
    const auto successor = announce("run");
    EXPECT_TRUE(successor->claim({81}));
    EXPECT_FALSE(successor->claim({80})) << "the agent inside has it, around or not";
    inside.end();
    EXPECT_TRUE(successor->claim({80}));
}

TEST_F(Agents, APortThatIsTakenIsBusyAndNamesItsOwner) {
    Process other = agent({80, 443});
    ASSERT_EQ(other.read(), 'y');
    const auto ours = announce();
    ASSERT_TRUE(ours->claim({8080}));
    const auto claim = ours->claim({81, 443, 8080});
    ASSERT_FALSE(claim);
    EXPECT_EQ(claim.error().exit, Exit::busy);
    for (const std::string& part :
         {std::string("443"), std::to_string(other.pid()), std::string("/run/other.sock")})
        EXPECT_NE(claim.error().message.find(part), std::string::npos) << claim.error().message;
    Process third = agent({81}); // all or none
    EXPECT_EQ(third.read(), 'y');
    Process fourth = agent({8080}); // what we had before we still have, and say so while we wait
    std::jthread loop([&](const std::stop_token& stop) {
        loop_->run_until([&] { return stop.stop_requested(); }, Clock::now() + 10s, 5ms);
    });
    EXPECT_EQ(fourth.read(), 'n');
    loop.request_stop();
    loop.join();
    other.end();
    EXPECT_TRUE(ours->claim({443})) << "it went with its process";
}

TEST_F(Agents, APortThatIsGivenUpIsFree) {
    const auto first = announce(), second = announce();
    ASSERT_TRUE(first->claim({80, 81}));
    ASSERT_FALSE(second->claim({81}));
    ASSERT_TRUE(first->claim({80}));
    EXPECT_TRUE(second->claim({81}));
    EXPECT_FALSE(first->claim({80, 81})) << "the older one, but too late";
}

TEST_F(Agents, OneAtMostIsTransparent) {
    const auto first = announce();
    const auto second = announce();
    ASSERT_TRUE(first->claim_transparent(true));
    EXPECT_TRUE(first->claim_transparent(true)) << "it is its own already";
    const auto claim = second->claim_transparent(true);
    ASSERT_FALSE(claim);
    EXPECT_EQ(claim.error().exit, Exit::busy);
    EXPECT_NE(claim.error().message.find(std::to_string(getpid())), std::string::npos)
        << claim.error().message;
    EXPECT_TRUE(second->claim({80})) << "ports are another matter";
    ASSERT_TRUE(first->claim_transparent(false));
    EXPECT_TRUE(second->claim_transparent(true));
    EXPECT_FALSE(first->claim_transparent(true)) << "the older one, but too late";
}

TEST_F(Agents, OneThatStopsSeesWhoWaitsForItsPorts) {
    const auto old = announce("run"), next = announce("run"), around = announce("exec");
    ASSERT_TRUE(old->claim({80, 443}));
    ASSERT_TRUE(around->claim({80}));
    EXPECT_TRUE(old->successors({80, 443}).empty());
    next->wait_for({443});
    EXPECT_TRUE(old->successors({443}).empty()) << "it has asked nobody yet";
    EXPECT_FALSE(next->claim({443}));
    const auto waiting = old->successors({80, 443});
    ASSERT_EQ(waiting.size(), 1U);
    EXPECT_EQ(waiting[0].id, next->id());
    EXPECT_TRUE(old->successors({80}).empty());
    next->wait_for({});
    EXPECT_TRUE(old->successors({443}).empty());
    ASSERT_TRUE(old->claim({}));
    ASSERT_TRUE(next->claim({443}));
    EXPECT_EQ(old->successors({443}).size(), 1U) << "it waits no more, and has it";
}

TEST_F(Agents, WhoeverHasOneOfItsPortsSeesWhoWaits) {
    const auto one = announce("run"), other = announce("run"), next = announce("run");
    ASSERT_TRUE(one->claim({80}));
    ASSERT_TRUE(other->claim({443}));
    next->wait_for({80, 443});
    EXPECT_FALSE(next->claim({80, 443}));
    EXPECT_EQ(one->successors({80}).size(), 1U);
    EXPECT_EQ(other->successors({443}).size(), 1U);
}

TEST_F(Agents, WhatIsWaitedForIsToldAlsoWhileItIsClaimed) {
    auto statement = statement_of(7, {80}, {443, 444});
    statement.peer.waiting = {443, 444, 8080};
    const auto parsed = registry::parse_message(registry::to_message(statement));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->peer.waiting, statement.peer.waiting);
    statement.peer.waiting = {};
    EXPECT_TRUE(registry::parse_message(registry::to_message(statement))->peer.waiting.empty());
}

TEST_F(Agents, TransparentProxyingThatIsLentIsFreeAndKnown) {
    const auto old = announce("run"), next = announce("run");
    ASSERT_TRUE(old->claim_transparent(true));
    old->lend_transparent();
    const auto peers = find_peers();
    ASSERT_TRUE(peers);
    EXPECT_EQ(std::ranges::count_if(*peers, &Peer::lends), 1);
    EXPECT_TRUE(next->claim_transparent(true));
    EXPECT_FALSE(old->claim_transparent(true)) << "somebody has taken it over";
    const auto now = find_peers();
    ASSERT_TRUE(now);
    EXPECT_EQ(std::ranges::count_if(*now, &Peer::lends), 0) << "who asks for it again lends no more";
}

TEST_F(Agents, EveryPortFitsIntoAnAnswer) {
    PortSet odd, even;
    for (unsigned port = 1; port <= 65535; ++port)
        (port % 2 ? odd : even).insert(static_cast<std::uint16_t>(port));
    Process other = agent(odd);
    ASSERT_EQ(other.read(), 'y');
    const auto ours = announce();
    EXPECT_TRUE(ours->claim(even));
    EXPECT_FALSE(ours->claim({1}));
    auto both = statement_of(7, odd, even);
    both.peer.waiting = even;
    const auto parsed = registry::parse_message(registry::to_message(both));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->claiming, even);
    EXPECT_LT(registry::to_message(both).size(), 2U * 212992 - 4096)
        << "the default net.core.wmem_max, doubled";
}

// Starts agents that claim the same ports at the same instant; returns how many got them.
int winners_of(int count, const PortSet& ports) {
    int gate[2]; // its end is the start
    EXPECT_EQ(::pipe2(gate, O_CLOEXEC), 0);
    const Fd wait(gate[0]);
    Fd hold(gate[1]);
    std::vector<Process> processes;
    for (int i = 0; i < count; ++i)
        processes.emplace_back([&](int channel) {
            const auto loop = std::move(*Loop::make());
            const auto registry = std::move(*Registry::announce(*loop, "run", "/run/other.sock"));
            tell(channel, 'r');
            hold.reset();
            wait_for(wait.get(), POLLIN, Clock::now() + 10s);
            const auto claim = registry->claim(ports);
            tell(channel, claim ? 'y' : claim.error().code == EADDRINUSE ? 'n' : '?');
            serve(*loop);
        });
    for (const Process& process : processes)
        EXPECT_EQ(process.read(), 'r');
    hold.reset();
    std::string answers;
    for (const Process& process : processes)
        answers += process.read();
    EXPECT_EQ(answers.find_first_not_of("yn"), answers.npos)
        << answers << ": a claim failed for another reason";
    return static_cast<int>(std::ranges::count(answers, 'y'));
}

TEST_F(Agents, OfTwoThatClaimAtOnceExactlyOneWins) {
    for (int round = 0; round < 50; ++round)
        ASSERT_EQ(winners_of(2, {80, 443}), 1) << "round " << round;
}

TEST_F(Agents, OfManyThatClaimAtOnceExactlyOneWins) {
    for (int round = 0; round < 10; ++round)
        ASSERT_EQ(winners_of(8, {80}), 1) << "round " << round;
}

// The order of events that a race seldom brings: the older one's claim is published after the younger one has
// asked, and before that has settled. The older goes on, so the younger must ask again.
TEST_F(Agents, AClaimantAsksBackWhenAnOlderOneAsks) {
    Process older([](int channel) {
        const Fd listener = listen_as(1);
        tell(channel, 'r');
        const Fd question(::accept(listener.get(), nullptr, nullptr)); // the younger one waits now
        const auto ids = registry::list_ids();
        const Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        const auto own = abstract_address(registry::claimant_name({.since_ns = 1, .id = 1}, 5));
        ::bind(fd.get(), own.get(), own.length);
        const auto name = abstract_address(registry::agent_name(*ids->rbegin()));
        ::connect(fd.get(), name.get(), name.length);
        std::string message(65536, '\0');
        const bool answered = wait_for(fd.get(), POLLIN, Clock::now() + 900ms); // while it waits for us
        const ssize_t size = answered ? ::recv(fd.get(), message.data(), message.size(), 0) : 0;
        const auto said = registry::parse_message(message.substr(0, static_cast<std::size_t>(size)));
        tell(channel, said && said->claiming == PortSet{80} && said->peer.ports.empty() ? 'c' : '?');
        const std::string before = registry::to_message(statement_of(1, {}));
        ::send(question.get(), before.data(), before.size(), MSG_NOSIGNAL);
        answer_next(listener, registry::to_message(statement_of(1, {}, {80})));
        tell(channel, 'b');
    });
    ASSERT_EQ(older.read(), 'r');
    const auto ours = announce();
    const auto claim = ours->claim({80});
    EXPECT_EQ(older.read(), 'c');
    ASSERT_FALSE(claim);
    EXPECT_EQ(claim.error().exit, Exit::busy);
    EXPECT_EQ(older.read(), 'b');
}

TEST_F(Agents, AYoungerClaimantDoesNotStopAnOlderOne) {
    const auto ours = announce();
    auto younger = statement_of(1, {}, {80});
    younger.peer.since_ns = to_ns(Clock::now()) + 1;
    Process other([&](int channel) {
        const Fd listener = listen_as(1);
        tell(channel, 'r');
        answer_next(listener, registry::to_message(younger));
    });
    ASSERT_EQ(other.read(), 'r');
    const auto claim = ours->claim({80});
    EXPECT_TRUE(claim) << claim.error().message;
}

TEST_F(Agents, AStoppedOneIsAliveAndItsClaimUnknown) {
    Process other = agent({80});
    ASSERT_EQ(other.read(), 'y');
    const auto ours = announce();
    ASSERT_TRUE(ours->claim({81, 82}));
    other.stop();
    const Time begin = Clock::now();
    const auto claim = ours->claim({83});
    EXPECT_LT(Clock::now() - begin, 10s); // its patience is 3 s
    ASSERT_FALSE(claim);
    EXPECT_NE(claim.error().message.find("pid " + std::to_string(other.pid())), std::string::npos)
        << claim.error().message;
    EXPECT_TRUE(ours->claim({82})) << "to give ports up nobody is asked";
    EXPECT_EQ(find_peers()->size(), 2U);
}

TEST_F(Agents, WhoeverEndsWhileItIsAskedHasNoClaim) {
    Process other([&](int channel) {
        const Fd listener = listen_as(1);
        tell(channel, 'r');
        const Fd question(::accept(listener.get(), nullptr, nullptr));
    });
    ASSERT_EQ(other.read(), 'r');
    const auto ours = announce();
    const auto claim = ours->claim({80});
    EXPECT_TRUE(claim) << claim.error().message;
}

TEST_F(Agents, AnAnswerThatIsNoneIsAnError) {
    for (const std::string& message :
         {std::string("{}"), std::string("\xff"), registry::to_message(statement_of(2, {}))}) {
        Process other([&](int channel) {
            const Fd listener = listen_as(1);
            tell(channel, 'r');
            answer_next(listener, message);
            ::pause();
        });
        ASSERT_EQ(other.read(), 'r');
        const auto ours = announce();
        const auto claim = ours->claim({80});
        ASSERT_FALSE(claim) << message;
        EXPECT_NE(claim.error().message.find("0000000000000001"), std::string::npos) << claim.error().message;
    }
}

TEST_F(Agents, StrangersArePassedOver) {
    const auto ours = announce();
    Process stranger([&](int channel) {
        if (::setresuid(65534, 65534, 65534) < 0)
            return;
        const Fd listener = listen_as(1), stream = listen_as(2, SOCK_STREAM),
                 full = listen_as(3, SOCK_SEQPACKET, 0);
        // Nobody can connect to this one any more, so nobody could ask whose it is.
        std::vector<Fd> filling;
        for (int i = 0; i < 4; ++i) {
            filling.emplace_back(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
            const auto name = abstract_address(registry::agent_name(3));
            [[maybe_unused]] const int r = ::connect(filling.back().get(), name.get(), name.length);
        }
        tell(channel, 'r');
        for (;;)
            answer_next(listener, registry::to_message(statement_of(1, {80})));
    });
    ASSERT_EQ(stranger.read(), 'r');
    const auto claim = ours->claim({80});
    EXPECT_TRUE(claim) << claim.error().message;
    EXPECT_EQ(find_peers()->size(), 1U);
    // It may be an agent of another user: nobody cleans up after it.
    EXPECT_TRUE(is_alive(1));
    EXPECT_TRUE(is_alive(3));
    EXPECT_FALSE(is_alive(4));
}

} // namespace
} // namespace syngate
