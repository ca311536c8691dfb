// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/process_tree.hpp"

#include "server_test_support.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

namespace syngate {
namespace {

struct ProcessTreeTest : test::LoopWithChildren {};

std::uint32_t inode_of(int fd) {
    struct stat info {};
    EXPECT_EQ(fstat(fd, &info), 0);
    return static_cast<std::uint32_t>(info.st_ino);
}

// A zombie of ours that nobody reaps until we do: no loop runs meanwhile.
pid_t make_zombie() {
    const pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    siginfo_t info{};
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
    return pid;
}

TEST_F(ProcessTreeTest, HoldsRootItsDescendantsAndNobodyElse) {
    pid_t root = -1;
    const auto pids =
        spawn_and_read({"sh", "-c", "sleep 60 & echo $!; setsid sleep 60 & echo $!; wait"}, 2, root);
    ASSERT_EQ(pids.size(), 2U);
    EXPECT_EQ(process_tree(root), (std::set<pid_t>{root, pids[0], pids[1]}));
    EXPECT_EQ(process_tree(pids[1]), (std::set<pid_t>{pids[1]}));
    kill(pids[1], SIGKILL);
    kill(-root, SIGKILL);
    ASSERT_TRUE(wait_until_gone(root) && wait_until_gone(pids[0]) && wait_until_gone(pids[1]));
    EXPECT_TRUE(process_tree(root).empty());
}

TEST_F(ProcessTreeTest, HoldsTheGroupWhenRootIsGone) {
    pid_t root = -1;
    const auto pids = spawn_and_read({"sh", "-c", "sleep 60 & echo $!"}, 1, root);
    ASSERT_EQ(pids.size(), 1U);
    ASSERT_TRUE(wait_until_gone(root));
    EXPECT_EQ(process_tree(root), (std::set<pid_t>{pids[0]}));
    kill(-root, SIGKILL);
    ASSERT_TRUE(wait_until_gone(pids[0]));
    EXPECT_TRUE(process_tree(root).empty());
}

TEST_F(ProcessTreeTest, ZombiesDoNotCount) {
    const pid_t zombie = make_zombie();
    EXPECT_TRUE(process_tree(zombie).empty());
    EXPECT_FALSE(process_tree(getpid()).contains(zombie));
    EXPECT_TRUE(process_tree(getpid()).contains(getpid()));
    waitpid(zombie, nullptr, 0);
}

TEST_F(ProcessTreeTest, NamesWithBlanksAndParenthesesAreNoTrap) {
    const test::TempDir dir;
    const std::string odd = dir / "a) S 1 (1";
    std::filesystem::create_symlink("/bin/sleep", odd);
    const auto pid = children->spawn({odd, "60"});
    ASSERT_TRUE(pid);
    EXPECT_EQ(process_tree(*pid), (std::set<pid_t>{*pid}));
    EXPECT_TRUE(process_tree(getpid()).contains(*pid));
    kill(*pid, SIGKILL);
    EXPECT_TRUE(wait_for_end(*pid));
}

TEST_F(ProcessTreeTest, SocketInodesAreThoseOfFstat) {
    const Fd ours(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Fd passed(socket(AF_INET6, SOCK_STREAM, 0));
    const auto mine = socket_inodes({getpid()});
    ASSERT_TRUE(mine);
    EXPECT_TRUE(mine->contains(inode_of(ours.get())));
    EXPECT_TRUE(mine->contains(inode_of(passed.get())));
    const auto pid = children->spawn({"sleep", "60"});
    ASSERT_TRUE(pid);
    const auto theirs = socket_inodes({*pid});
    ASSERT_TRUE(theirs);
    EXPECT_FALSE(theirs->contains(inode_of(ours.get())));
    EXPECT_TRUE(theirs->contains(inode_of(passed.get())));
    kill(*pid, SIGKILL);
    EXPECT_TRUE(wait_for_end(*pid));
}

TEST_F(ProcessTreeTest, ProcessesThatEndedArePassedOver) {
    const auto pid = children->spawn({"true"});
    ASSERT_TRUE(pid);
    ASSERT_TRUE(wait_for_end(*pid));
    const auto inodes = socket_inodes({*pid});
    ASSERT_TRUE(inodes) << inodes.error().message;
    EXPECT_TRUE(inodes->empty());
}

TEST_F(ProcessTreeTest, AForbiddenLookNamesTheCapability) {
    if (geteuid() != 0)
        GTEST_SKIP() << "needs root, to become somebody who may not look";
    const pid_t zombie = make_zombie();
    const pid_t parent = getpid();
    const pid_t stranger = fork();
    if (stranger == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(1);
        const auto living = socket_inodes({parent});
        if (living || living.error().exit != Exit::impossible ||
            living.error().message.find("CAP_SYS_PTRACE") == std::string::npos)
            _exit(2);
        _exit(socket_inodes({zombie}) ? 0 : 3);
    }
    int status = -1;
    ASSERT_EQ(waitpid(stranger, &status, 0), stranger);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    waitpid(zombie, nullptr, 0);
}

} // namespace
} // namespace syngate
