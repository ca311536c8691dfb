// SPDX-License-Identifier: GPL-2.0-or-later
#include "server_test_support.hpp"

#include <csignal>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;
struct ChildrenTest : test::LoopWithChildren {};

Argv shell(const std::string& script) {
    return {"sh", "-c", script};
}

TEST_F(ChildrenTest, ReportHowTheyEnded) {
    const auto pid = children->spawn(shell("exit 3"));
    ASSERT_TRUE(pid);
    ASSERT_TRUE(wait_for_end(*pid));
    EXPECT_EQ(children->status(*pid)->as_exit_code(), 3);
    EXPECT_EQ(children->status(*pid)->text(), "exited with status 3");
    children->forget(*pid);
    EXPECT_FALSE(children->status(*pid));
}

TEST_F(ChildrenTest, ReportTheSignalThatKilledThem) {
    const auto ended = children->run(shell("kill -SEGV $$"), soon());
    ASSERT_TRUE(ended);
    EXPECT_TRUE(ended->status.signalled);
    EXPECT_EQ(ended->status.as_exit_code(), 128 + SIGSEGV);
    EXPECT_EQ(ended->status.text(), "was killed by SIGSEGV (11)");
}

TEST_F(ChildrenTest, MissingProgramIsAnErrorOfSpawn) {
    const auto pid = children->spawn({"syngate-no-such-program"});
    ASSERT_FALSE(pid);
    EXPECT_EQ(pid.error().exit, Exit::usage);
    EXPECT_EQ(pid.error().message,
              "cannot start 'syngate-no-such-program': No such file or directory; give the "
              "server's path after --");
    EXPECT_EQ(children->run({"syngate-no-such-program"}, soon()).error().exit, Exit::usage);
    EXPECT_EQ(children->can_spawn({"syngate-no-such-program"}).error().message, pid.error().message);
    EXPECT_EQ(children->spawn({}).error().exit, Exit::usage);
}

TEST_F(ChildrenTest, NonExecutableProgramIsAnErrorOfSpawn) {
    const test::TempDir dir;
    const std::string file = dir.write("server", "not a program\n");
    const auto pid = children->spawn({file});
    ASSERT_FALSE(pid);
    EXPECT_EQ(pid.error().exit, Exit::usage);
    EXPECT_EQ(pid.error().code, EACCES);
    EXPECT_EQ(children->can_spawn({file}).error().message, pid.error().message);
    EXPECT_TRUE(children->can_spawn({"true"}));
    EXPECT_NE(pid.error().message.find("chmod +x"), std::string::npos) << pid.error().message;
}

TEST_F(ChildrenTest, StatusOfOneThatEndedBeforeTheLoopRanIsNotLost) {
    const auto pid = children->spawn({"true"});
    ASSERT_TRUE(pid);
    siginfo_t info{};
    ASSERT_EQ(waitid(P_PID, static_cast<id_t>(*pid), &info, WEXITED | WNOWAIT), 0);
    ASSERT_TRUE(wait_for_end(*pid));
    EXPECT_EQ(children->status(*pid)->as_exit_code(), 0);
}

TEST_F(ChildrenTest, ManyThatEndTogetherAreAllReaped) {
    std::vector<pid_t> pids;
    for (int i = 0; i < 30; ++i)
        pids.push_back(*children->spawn({"true"}));
    for (const pid_t pid : pids)
        EXPECT_TRUE(wait_for_end(pid));
}

TEST_F(ChildrenTest, StartWithDefaultSignalsTheirOwnGroupAndTheGivenEnvironment) {
    sigset_t usr1;
    sigset_t before;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, &before);
    const auto old = signal(SIGUSR2, SIG_IGN);
    setenv("SYNGATE_TEST_ENV", "old", 1);
    SpawnOptions options;
    options.environment = {"SYNGATE_TEST_ENV=new", "SYNGATE_TEST_MORE=more"};
    const auto ended = children->run(
        shell("sed -nE 's/^Sig(Blk|Ign):\\s*//p' /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$; "
              "echo $SYNGATE_TEST_ENV $SYNGATE_TEST_MORE"),
        soon(), options);
    signal(SIGUSR2, old);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    unsetenv("SYNGATE_TEST_ENV");
    ASSERT_TRUE(ended);
    std::istringstream output(ended->output);
    std::uint64_t blocked = 1;
    std::uint64_t ignored = 0;
    pid_t group = 0;
    pid_t pid = -1;
    std::string words;
    output >> std::hex >> blocked >> ignored >> std::dec >> group >> pid >> std::ws;
    std::getline(output, words);
    EXPECT_EQ(blocked, 0U);
    // The C library keeps signals 32 and 33 for itself.
    EXPECT_EQ(ignored & ~(std::uint64_t{3} << 31), 0U);
    EXPECT_EQ(group, pid);
    EXPECT_EQ(words, "new more");
}

TEST_F(ChildrenTest, TakesNoMoreOfTheProcessorsThanItsNiceness) {
    SpawnOptions options;
    options.niceness = 7;
    // It is given while the program starts.
    const auto nice = fmt::format("until [ $(nice) = {} ]; do :; done", getpriority(PRIO_PROCESS, 0) + 7);
    EXPECT_EQ(children->run(shell(nice), soon(), options)->status.as_exit_code(), 0);
}

TEST_F(ChildrenTest, OutputIsStandardOutputAndErrorAndItsTailIsKept) {
    const auto both = children->run(shell("echo one; echo two >&2"), soon());
    ASSERT_TRUE(both);
    EXPECT_EQ(both->output, "one\ntwo\n");
    const auto many = children->run({"seq", "1", "200000"}, soon());
    ASSERT_TRUE(many);
    EXPECT_EQ(many->output.size(), 8192U);
    EXPECT_TRUE(many->output.ends_with("\n199999\n200000\n"));
}

TEST_F(ChildrenTest, RunDoesNotWaitForAGrandchildThatKeepsTheOutputOpen) {
    const Time begin = Clock::now();
    const auto ended = children->run(shell("sleep 60 & echo $!"), soon(30s));
    ASSERT_TRUE(ended);
    EXPECT_LT(Clock::now() - begin, 20s);
    const pid_t grandchild = std::stoi(ended->output);
    EXPECT_EQ(kill(grandchild, SIGKILL), 0);
    EXPECT_TRUE(wait_until_gone(grandchild));
}

TEST_F(ChildrenTest, RunKillsTheWholeGroupAfterTheDeadline) {
    const auto ended = children->run(shell("sleep 60 & echo pid $!; wait"), soon(500ms));
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().exit, Exit::failed);
    EXPECT_EQ(ended.error().code, ETIMEDOUT);
    const auto at = ended.error().message.find("pid ");
    ASSERT_NE(at, std::string::npos) << ended.error().message;
    EXPECT_TRUE(wait_until_gone(std::stoi(ended.error().message.substr(at + 4))));
}

TEST_F(ChildrenTest, RunEndsTheProgramWhenItIsCancelled) {
    bool cancelled = false;
    const auto source = loop->after(10ms, [&] { cancelled = true; });
    const Time begin = Clock::now();
    const auto ended = children->run({"sleep", "60"}, soon(30s), {}, [&] { return cancelled; });
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().code, ECANCELED);
    EXPECT_LT(Clock::now() - begin, 20s);
}

TEST_F(ChildrenTest, RunIsDoneWhenOutputEndsBeforeTheProgram) {
    const auto ended = children->run(shell("echo text; exec >&- 2>&-; sleep 0.1; exit 7"), soon());
    ASSERT_TRUE(ended);
    EXPECT_EQ(ended->status.as_exit_code(), 7);
    EXPECT_EQ(ended->output, "text\n");
}

TEST_F(ChildrenTest, OrphansComeToUsAndAreReaped) {
    const auto ended = children->run(shell("sleep 60 >/dev/null 2>&1 & echo $!"), soon());
    ASSERT_TRUE(ended);
    const pid_t orphan = std::stoi(ended->output);
    std::string parent;
    std::ifstream status("/proc/" + std::to_string(orphan) + "/status");
    while (parent != "PPid:" && status >> parent) {
    }
    status >> parent;
    EXPECT_EQ(parent, std::to_string(getpid()));
    EXPECT_EQ(kill(orphan, SIGKILL), 0);
    EXPECT_TRUE(wait_until_gone(orphan)); // nobody else would take its status
    EXPECT_FALSE(children->status(orphan));
}

} // namespace
} // namespace syngate
