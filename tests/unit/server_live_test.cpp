// SPDX-License-Identifier: GPL-2.0-or-later
// The recipes with the real servers, which listen on UNIX sockets in a temporary directory only.
#include "base/turns.hpp"
#include "server/process_tree.hpp"
#include "server/recipe.hpp"
#include "server/supervised_server.hpp"

#include "server_test_support.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>

namespace syngate {
namespace {

bool is_installed(const std::string& program) {
    for (const char* directory : {"/usr/sbin/", "/usr/local/sbin/", "/usr/bin/"})
        if (access((directory + program).c_str(), X_OK) == 0)
            return true;
    return false;
}

bool answers(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        return false;
    constexpr std::string_view request = "GET / HTTP/1.0\r\n\r\n";
    std::array<char, 12> reply{};
    return write(fd.get(), request.data(), request.size()) > 0 &&
           read(fd.get(), reply.data(), reply.size()) == 12 &&
           std::string_view(reply.data(), reply.size()).ends_with(" 200");
}

// The inode of the socket that listens at the path: /proc/net/unix has it in the column before the path.
std::uint32_t inode_at(const std::string& path) {
    std::ifstream table("/proc/net/unix");
    for (std::string line; std::getline(table, line);) {
        std::istringstream words(line);
        std::string skipped;
        std::string flags;
        std::uint32_t inode = 0;
        std::string name;
        words >> skipped >> skipped >> skipped >> flags >> skipped >> skipped >> inode >> name;
        if (name.starts_with(path) && flags == "00010000")
            return inode;
    }
    return 0;
}

// Bits of a signal set in /proc/PID/status.
std::uint64_t signal_set(pid_t pid, const std::string& name) {
    std::ifstream status("/proc/" + std::to_string(pid) + "/status");
    for (std::string key; status >> key;) {
        std::uint64_t set = 0;
        if (key == name + ":" && status >> std::hex >> set)
            return set;
    }
    return 0;
}

struct LiveServer : test::LoopWithChildren {
    test::TempDir dir;
    std::vector<pid_t> started;

    pid_t start(const Argv& argv) {
        const auto pid = children->spawn(argv);
        EXPECT_TRUE(pid) << pid.error().message;
        if (pid)
            started.push_back(*pid);
        return pid.value_or(-1);
    }
    void TearDown() override {
        for (const pid_t pid : started) {
            for (const pid_t process : process_tree(pid))
                kill(process, SIGKILL);
            EXPECT_TRUE(wait_for([&] { return process_tree(pid).empty(); }));
        }
    }
};

struct LiveHaproxy : LiveServer, testing::WithParamInterface<const char*> {
    void SetUp() override {
        if (!is_installed("haproxy"))
            GTEST_SKIP() << "haproxy is not installed";
    }
    std::string configuration(bool expose) {
        return dir.write("h.cfg", "global\n  daemon\n  stats socket unix@" + (dir / "adm").string() +
                                      " level admin" + (expose ? " expose-fd listeners" : "") +
                                      "\ndefaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  "
                                      "timeout connect 5s\nfrontend f\n  bind " +
                                      (dir / "front").string() + "\n  http-request return status 200\n");
    }
    Argv command(const std::string& file) {
        Argv argv{"haproxy", "-f", file};
        if (*GetParam())
            argv.insert(argv.begin() + 1, GetParam());
        return argv;
    }
};

// What sock_diag would say of one socket, which here is a UNIX socket.
struct OneListener final : Sockets {
    explicit OneListener(std::string path) : path_(std::move(path)) {}
    Result<std::vector<Listener>> listeners() override {
        std::vector<Listener> all;
        if (const std::uint32_t inode = inode_at(path_); inode != 0)
            all.push_back({.port = 80, .inode = inode, .cookie = inode});
        return all;
    }
    Result<std::vector<HalfOpen>> half_open(const PortSet&) override { return {}; }
    Result<std::size_t> connected(const PortSet&, const std::set<std::uint32_t>*) override { return 0; }

    std::string path_;
};

TEST_P(LiveHaproxy, OneThatStartsBesideAnotherIsReadyWhenItWaitsForConnections) {
    const auto recipe = make_recipe(command(configuration(false)), {});
    ASSERT_TRUE(recipe);
    OneListener sockets(dir / "front");
    std::uint64_t usual = 0;
    {
        const UsualTurns as_by_default;
        usual = test::turn_of(getpid());
    }
    take_short_turns();
    const auto server = make_supervised_server(*children, sockets, *recipe);
    for (int i = 0; i < 10; ++i) {
        const auto generation = server->start(true);
        ASSERT_TRUE(generation) << generation.error().message;
        started.push_back(*generation);
        EXPECT_EQ(test::turn_of(getpid()), test::short_turn());
        ASSERT_TRUE(wait_for([&] {
            const auto its = server->listeners(*generation);
            return its && !its->empty();
        }));
        const Time listened = Clock::now();
        ASSERT_TRUE(loop->run_until([&] { return server->is_ready(*generation); }, soon(),
                                    std::chrono::microseconds(100)));
        // On a busy machine it may be as slow as one that never waits for some socket.
        const bool in_time = Clock::now() < listened + std::chrono::milliseconds(150);
        const std::uint32_t inode = inode_at(sockets.path_);
        const auto polled = polled_inodes(process_tree(*generation));
        ASSERT_TRUE(polled);
        EXPECT_TRUE(!in_time || polled->contains(inode)) << i;
        for (const pid_t process : process_tree(*generation))
            EXPECT_EQ(test::turn_of(process), usual) << "the agent's own are not handed on";
        server->kill(*generation);
        ASSERT_TRUE(wait_for([&] { return process_tree(*generation).empty(); }));
        std::filesystem::remove(sockets.path_);
    }
}

TEST_P(LiveHaproxy, TheNextOneInheritsTheListenersAndServesOn) {
    const auto recipe = make_recipe(command(configuration(true)), {});
    ASSERT_TRUE(recipe);
    EXPECT_EQ(overlap_command(*recipe), recipe->start);
    const std::string front = dir / "front";

    const pid_t old = start(recipe->start);
    ASSERT_TRUE(wait_for([&] { return answers(front); }));
    EXPECT_FALSE(children->status(old)) << "it left the foreground";
    const std::uint32_t listener = inode_at(front);
    ASSERT_NE(listener, 0U);
    EXPECT_TRUE(socket_inodes(process_tree(old))->contains(listener));

    const Argv next = overlap_command(*recipe);
    ASSERT_EQ(std::ranges::count(next, "-x"), 1);
    const pid_t young = start(next);
    EXPECT_TRUE(wait_for([&] { return socket_inodes(process_tree(young))->contains(listener); }));
    EXPECT_FALSE(children->status(old)) << "-x without -sf must leave the old one alone";

    EXPECT_EQ(kill(old, recipe->release_signal), 0);
    ASSERT_TRUE(wait_for_end(old));
    EXPECT_EQ(children->status(old)->as_exit_code(), 0);
    EXPECT_TRUE(wait_for([&] { return process_tree(old).empty(); }));
    EXPECT_TRUE(answers(front));
    EXPECT_FALSE(children->status(young));
    // The stats socket is the new one's now, and leads to it again.
    EXPECT_EQ(overlap_command(*recipe), next);

    // A master that has just forked executes itself anew; a signal that comes meanwhile is lost.
    const std::uint64_t release = std::uint64_t{1} << (recipe->release_signal - 1);
    ASSERT_TRUE(wait_for([&] {
        const bool master = *GetParam() && GetParam()[1] == 'W';
        return (signal_set(young, "SigCgt") & ~signal_set(young, "SigBlk") & release) &&
               socket_inodes({young})->contains(listener) != master;
    }));
    EXPECT_EQ(kill(young, recipe->release_signal), 0);
    ASSERT_TRUE(wait_for_end(young));
    EXPECT_EQ(children->status(young)->as_exit_code(), 0);
}

TEST_P(LiveHaproxy, TheCheckTellsGoodFromBad) {
    Argv argv = command(configuration(false));
    argv.insert(argv.end(), {"-D", "-q", "-p", dir / "pid"});
    const auto recipe = make_recipe(argv, {});
    ASSERT_TRUE(recipe);
    const auto good = children->run(recipe->check, soon());
    ASSERT_TRUE(good);
    EXPECT_EQ(good->status.as_exit_code(), 0) << good->output;
    dir.write("h.cfg", "global\n  nonsense\n");
    const auto bad = children->run(recipe->check, soon());
    ASSERT_TRUE(bad);
    EXPECT_EQ(bad->status.as_exit_code(), 1);
    EXPECT_NE(bad->output.find("nonsense"), std::string::npos) << bad->output;
}

INSTANTIATE_TEST_SUITE_P(Modes, LiveHaproxy, testing::Values("", "-W", "-D"), [](const auto& mode) {
    return std::string(!*mode.param ? "Plain" : std::strcmp(mode.param, "-W") == 0 ? "Master" : "Daemon");
});

struct LiveNginx : LiveServer {
    void SetUp() override {
        if (!is_installed("nginx"))
            GTEST_SKIP() << "nginx is not installed";
    }
};

TEST_F(LiveNginx, StaysInTheForegroundReloadsAndLeavesGently) {
    const std::string front = dir / "front";
    const std::string text = "pid " + (dir / "pid").string() +
                             ";\nevents {}\nhttp { access_log off; server { listen unix:" + front +
                             "; return 200; } }\n";
    const std::string file = dir.write("nginx.conf", text);
    const auto recipe = make_recipe({"nginx", "-e", "stderr", "-c", file, "-g", "worker_processes 1;"}, {});
    ASSERT_TRUE(recipe);
    const auto check = children->run(recipe->check, soon());
    ASSERT_TRUE(check);
    ASSERT_EQ(check->status.as_exit_code(), 0) << check->output;

    // The check leaves its socket file behind.
    std::filesystem::remove(front);
    const pid_t pid = start(recipe->start);
    ASSERT_TRUE(wait_for([&] { return process_tree(pid).size() == 2 && inode_at(front) != 0; }));
    EXPECT_FALSE(children->status(pid));
    const auto before = process_tree(pid);
    EXPECT_EQ(kill(pid, recipe->reload_signal), 0);
    EXPECT_TRUE(wait_for([&] {
        const auto now = process_tree(pid);
        return now.size() == 2 && now != before;
    }));
    EXPECT_EQ(kill(pid, recipe->release_signal), 0);
    ASSERT_TRUE(wait_for_end(pid));
    EXPECT_EQ(children->status(pid)->as_exit_code(), 0);

    dir.write("nginx.conf", "nonsense;\n");
    const auto bad = children->run(recipe->check, soon());
    ASSERT_TRUE(bad);
    EXPECT_EQ(bad->status.as_exit_code(), 1);
    EXPECT_NE(bad->output.find("nonsense"), std::string::npos) << bad->output;
}

} // namespace
} // namespace syngate
