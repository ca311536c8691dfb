// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/control_client.hpp"
#include "control/control_server.hpp"
#include "control/socket_file.hpp"
#include "control/unix_socket.hpp"

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>

namespace syngate {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;

class Control : public testing::Test {
protected:
    void SetUp() override {
        char name[] = "/tmp/syngate-control-XXXXXX";
        ASSERT_NE(::mkdtemp(name), nullptr);
        directory_ = name;
        path_ = directory_ + "/made/on/the/way/control.sock";
        loop_ = std::move(*Loop::make());
    }
    void TearDown() override {
        server_.reset();
        kept_.clear();
        std::filesystem::remove_all(directory_);
    }

    // Of a directory that is made with this mode.
    static mode_t mode_of(const std::string& path) {
        struct stat status {};
        return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
    }
    std::string make(const std::string& name, mode_t mode) const {
        const std::string path = directory_ + "/" + name;
        EXPECT_EQ(::mkdir(path.c_str(), 0700), 0);
        EXPECT_EQ(::chmod(path.c_str(), mode), 0);
        return path;
    }

    // echo answers at once, keep answers when the test wants, drop never does.
    void start() {
        auto server = ControlServer::start(*loop_, path_, [this](const Json& request, Reply reply) {
            ++handled_;
            const std::string command = request.value("command", "echo");
            if (command == "keep")
                kept_.push_back(std::move(reply));
            else if (command == "big")
                reply({{"ok", true}, {"text", std::string(4'000'000, 'x')}});
            else if (command == "end")
                server_.reset();
            else if (command != "drop")
                reply({{"ok", true}, {"echo", request}});
        });
        ASSERT_TRUE(server) << server.error().message;
        server_ = std::move(*server);
    }
    bool pump(const std::function<bool()>& done) { return loop_->run_until(done, Clock::now() + 10s, 5ms); }
    // ask() waits, so it runs beside the loop.
    Result<Json> ask_it(const Json& request, Duration timeout = 5s) {
        Result<Json> answer;
        std::atomic<bool> done = false;
        std::jthread client([&] {
            answer = ask(path_, request, timeout);
            done = true;
        });
        pump([&] { return done.load(); });
        return answer;
    }
    Fd connect_it() {
        Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        const auto address = path_address(path_);
        EXPECT_EQ(::connect(fd.get(), address->get(), address->length), 0) << std::strerror(errno);
        return fd;
    }
    // What comes until a number of lines is there or the connection ends.
    std::vector<Json> lines_of(const Fd& fd, std::size_t count) {
        std::string text;
        bool ended = false;
        pump([&] {
            char buffer[65536];
            ssize_t size = 0;
            while ((size = ::recv(fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT)) > 0)
                text.append(buffer, static_cast<std::size_t>(size));
            ended = size == 0 || (errno != EAGAIN);
            return ended || static_cast<std::size_t>(std::ranges::count(text, '\n')) >= count;
        });
        std::vector<Json> lines;
        for (std::size_t begin = 0, end = 0; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
            lines.push_back(Json::parse(text.substr(begin, end - begin), nullptr, false));
        return lines;
    }
    // Whether the server closes it.
    bool is_closed(const Fd& fd) {
        return pump([&] {
            char byte = 0;
            const ssize_t size = ::recv(fd.get(), &byte, 1, MSG_DONTWAIT | MSG_PEEK);
            return size == 0 || (size < 0 && errno != EAGAIN);
        });
    }
    static void put(const Fd& fd, std::string_view text) {
        ASSERT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()))
            << std::strerror(errno);
    }

    std::string directory_, path_;
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<ControlServer> server_;
    std::vector<Reply> kept_;
    int handled_ = 0;
};

// An emptyDir of Kubernetes, as /run.
TEST_F(Control, NobodyElseCanReplaceItsDirectory) {
    const std::string shared = make("shared", 0777);
    EXPECT_TRUE(listen_at(shared + "/syngate/agent.sock", 1));
    EXPECT_EQ(mode_of(shared), 01777U);
    EXPECT_EQ(mode_of(shared + "/syngate"), 0700U);
    const std::string group = make("group", 0775);
    EXPECT_TRUE(listen_at(group + "/agent.sock", 1));
    EXPECT_EQ(mode_of(group), 0775U) << "its owner's choice";
}

TEST_F(Control, ADirectoryThatSomebodyHasPutThereIsRefused) {
    if (::geteuid() != 0)
        GTEST_SKIP() << "needs root";
    const std::string shared = make("shared", 01777);
    ASSERT_EQ(::mkdir((shared + "/syngate").c_str(), 0700), 0);
    ASSERT_EQ(::chown((shared + "/syngate").c_str(), 65534, 65534), 0);
    const auto refused = listen_at(shared + "/syngate/agent.sock", 1);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("uid 65534"), std::string::npos) << refused.error().message;
}

TEST_F(Control, AnswersAndLeavesNothingBehind) {
    const mode_t before = ::umask(0);
    start();
    ::umask(before);
    struct stat status {};
    ASSERT_EQ(::lstat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode, mode_t{S_IFSOCK | 0600});
    ASSERT_EQ(::stat((directory_ + "/made").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700U);
    const auto answer = ask_it({{"command", "echo"}, {"n", 7}});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ((*answer)["echo"]["n"], 7);
    server_.reset();
    EXPECT_NE(::lstat(path_.c_str(), &status), 0);
}

TEST_F(Control, AReplyMayComeLaterAndOnlyOnce) {
    start();
    const Fd first = connect_it(), second = connect_it();
    put(first, "{\"command\":\"keep\"}\n{\"n\":2}\n");
    ASSERT_TRUE(pump([&] { return kept_.size() == 1; }));
    put(second, "{\"n\":3}\n"); // nobody waits behind the one that is kept
    EXPECT_EQ(lines_of(second, 1).at(0)["echo"]["n"], 3);
    EXPECT_EQ(handled_, 2);
    kept_[0]({{"ok", true}, {"n", 1}});
    kept_[0]({{"ok", true}, {"n", 99}});
    EXPECT_EQ(handled_, 2) << "the next request is the loop's to start";
    const auto lines = lines_of(first, 2);
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_EQ(lines[0]["n"], 1);
    EXPECT_EQ(lines[1]["echo"]["n"], 2);
}

TEST_F(Control, AHandlerThatForgetsItsReplyStillAnswers) {
    start();
    const auto answer = ask_it({{"command", "drop"}});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ((*answer)["ok"], false);
}

TEST_F(Control, GarbageIsAnsweredAndTheConnectionGoesOn) {
    start();
    const Fd fd = connect_it();
    const std::string deep = std::string(30000, '[') + std::string(30000, ']');
    for (const std::string& text :
         {std::string("\n"), std::string("nonsense\n"), std::string("[1,2]\n"), std::string("{\"a\":\n"),
          std::string("\0\xff\xfe{}\n", 6), std::string("{\"command\":5}\n"), "{\"a\":" + deep + "}\n"}) {
        put(fd, text);
        const auto lines = lines_of(fd, 1);
        ASSERT_EQ(lines.size(), 1U) << text;
        EXPECT_EQ(lines[0]["ok"], false) << text;
        EXPECT_FALSE(lines[0]["message"].get<std::string>().empty());
    }
    put(fd, "{\"n\":\"]]]\\\"[[[\"}\n");
    EXPECT_EQ(lines_of(fd, 1).at(0)["ok"], true);
    put(fd, "{\"n\":8}"); // no newline, but its end
    ::shutdown(fd.get(), SHUT_WR);
    EXPECT_EQ(lines_of(fd, 1).at(0)["echo"]["n"], 8);
    EXPECT_TRUE(is_closed(fd));
}

TEST_F(Control, ARequestThatNeverEndsIsRefused) {
    start();
    const Fd fd = connect_it();
    put(fd, std::string(64 * 1024, 'x'));
    loop_->run_until([] { return false; }, Clock::now() + 20ms);
    put(fd, "yz");
    const auto lines = lines_of(fd, 1);
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines[0]["ok"], false);
    EXPECT_TRUE(is_closed(fd));
}

TEST_F(Control, ClientsThatDoNotReadOrHalfAskBlockNobody) {
    start();
    const Fd deaf = connect_it(), slow = connect_it();
    put(deaf, "{\"command\":\"big\"}\n");
    put(slow, "{\"command\":");
    ASSERT_TRUE(pump([&] { return handled_ == 1; }));
    EXPECT_TRUE(ask_it({{"n", 1}}));
    put(slow, "\"echo\"}\n");
    EXPECT_EQ(lines_of(slow, 1).at(0)["ok"], true);
    EXPECT_EQ(lines_of(deaf, 1).at(0)["text"].get<std::string>().size(), 4'000'000U);
}

TEST_F(Control, ClientsMayVanishAtAnyTime) {
    start();
    connect_it();
    put(connect_it(), "{\"comm");
    put(connect_it(), "{\"command\":\"big\"}\n");
    Fd waiting = connect_it();
    put(waiting, "{\"command\":\"keep\"}\n");
    ASSERT_TRUE(pump([&] { return kept_.size() == 1 && handled_ == 2; }));
    waiting.reset();
    EXPECT_TRUE(ask_it({{"n", 1}}));
    kept_[0]({{"ok", true}});
    EXPECT_TRUE(ask_it({{"n", 1}}));
}

TEST_F(Control, AReplyOutlivesTheServerAndAHandlerMayEndIt) {
    start();
    const Fd fd = connect_it();
    put(fd, "{\"command\":\"keep\"}\n");
    ASSERT_TRUE(pump([&] { return kept_.size() == 1; }));
    const auto answer = ask_it({{"command", "end"}});
    ASSERT_FALSE(answer);
    EXPECT_NE(answer.error().message.find("closed the connection"), std::string::npos);
    kept_[0]({{"ok", true}});
    EXPECT_TRUE(is_closed(fd));
}

TEST_F(Control, IdleClientsMakeRoomAndWaitingOnesDoNot) {
    start();
    std::vector<Fd> clients;
    for (int i = 0; i < 63; ++i) {
        clients.push_back(connect_it());
        put(clients.back(), "{\"command\":\"keep\"}\n");
    }
    ASSERT_TRUE(pump([&] { return kept_.size() == 63; }));
    const Fd idle = connect_it();
    EXPECT_TRUE(ask_it({{"n", 1}})) << "took the idle one's place";
    EXPECT_TRUE(is_closed(idle));
    clients.push_back(connect_it());
    put(clients.back(), "{\"command\":\"keep\"}\n");
    ASSERT_TRUE(pump([&] { return kept_.size() == 64; }));
    const auto refused = ask_it({{"n", 1}});
    ASSERT_TRUE(refused) << refused.error().message;
    EXPECT_EQ((*refused)["ok"], false);
    kept_[0]({{"ok", true}});
    EXPECT_EQ(lines_of(clients[0], 1).size(), 1U);
    EXPECT_EQ((*ask_it({{"n", 1}}))["ok"], true);
}

TEST_F(Control, OutOfDescriptorsIsAnsweredAndSurvived) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the sanitizers themselves need descriptors, to see whether memory can be read";
#endif
    start();
    const Fd fd = connect_it();
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    const rlimit few{.rlim_cur = 256, .rlim_max = before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
    std::vector<Fd> filling;
    do {
        filling.emplace_back(::dup(fd.get()));
    } while (filling.back());
    const auto lines = lines_of(fd, 1);
    filling.clear();
    ::setrlimit(RLIMIT_NOFILE, &before);
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines[0]["ok"], false);
    EXPECT_EQ((*ask_it({{"n", 1}}))["ok"], true);
}

TEST_F(Control, ADeadAgentsSocketIsReplacedALivingOnesIsBusy) {
    start();
    const auto second = ControlServer::start(*loop_, path_, [](const Json&, const Reply&) {});
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().exit, Exit::busy);
    EXPECT_NE(second.error().message.find(path_), std::string::npos);
    server_.reset();

    const auto address = path_address(path_);
    Fd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(dead.get(), address->get(), address->length), 0);
    ASSERT_EQ(::listen(dead.get(), 1), 0);
    dead.reset();
    const auto unanswered = ask(path_, Json::object(), 1s);
    ASSERT_FALSE(unanswered);
    EXPECT_NE(unanswered.error().message.find("no agent answers"), std::string::npos);
    start();
    EXPECT_TRUE(ask_it({{"n", 1}}));
}

TEST_F(Control, SocketsOnWhichNobodyListensAreSwept) {
    path_ = directory_ + "/net-1-living.sock";
    start();
    for (const char* name : {"/net-1-dead.sock", "/mine.sock"}) {
        const auto address = path_address(directory_ + name);
        const Fd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        ASSERT_EQ(::bind(dead.get(), address->get(), address->length), 0);
    }
    std::ofstream(directory_ + "/net-1-file.sock") << "no socket";
    EXPECT_EQ(sweep_sockets(directory_, "net-"), std::vector<std::string>{directory_ + "/net-1-dead.sock"});
    EXPECT_EQ(sweep_sockets(directory_, "net-"), std::vector<std::string>{});
    EXPECT_TRUE(std::filesystem::exists(directory_ + "/mine.sock"));
    EXPECT_TRUE(ask_it({{"n", 1}}));
    EXPECT_EQ(sweep_sockets(directory_ + "/missing", "net-"), std::vector<std::string>{});
}

TEST_F(Control, WhatIsNoSocketStays) {
    path_ = directory_ + "/file";
    std::ofstream(path_) << "precious";
    const auto server = ControlServer::start(*loop_, path_, [](const Json&, const Reply&) {});
    ASSERT_FALSE(server);
    EXPECT_NE(server.error().message.find("no socket"), std::string::npos);
    EXPECT_EQ(std::filesystem::file_size(path_), 8U);
}

TEST_F(Control, AnotherAgentsFileIsNotRemoved) {
    path_ = directory_ + "/control.sock";
    start();
    std::filesystem::remove(path_);
    std::ofstream(path_) << "somebody else's";
    server_.reset();
    EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(Control, APathThatIsTooLongIsAUsageError) {
    path_ = directory_ + "/" + std::string(108, 'x');
    const auto server = ControlServer::start(*loop_, path_, [](const Json&, const Reply&) {});
    ASSERT_FALSE(server);
    EXPECT_EQ(server.error().exit, Exit::usage);
    EXPECT_NE(server.error().message.find("107"), std::string::npos);
    EXPECT_EQ(ask(path_, Json::object(), 1s).error().exit, Exit::usage);
}

TEST_F(Control, AnAgentThatIsStuckMeansATimeoutThatSaysSo) {
    start();
    const auto answer = ask(path_, {{"n", 1}}, 50ms); // nobody runs the loop
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ETIMEDOUT);
}

// What the work says in a process with another uid.
std::string as_uid(uid_t uid, const std::function<std::string()>& work) {
    int ends[2];
    if (::pipe(ends) < 0)
        return "";
    const pid_t pid = ::fork();
    if (pid == 0) {
        const std::string text = ::setresuid(uid, uid, uid) == 0 ? work() : "setresuid failed";
        const ssize_t size = ::write(ends[1], text.data(), text.size());
        ::_exit(size < 0);
    }
    ::close(ends[1]);
    char buffer[4096];
    const ssize_t size = ::read(ends[0], buffer, sizeof(buffer));
    ::close(ends[0]);
    ::waitpid(pid, nullptr, 0);
    return {buffer, static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
}

TEST_F(Control, OtherUsersAreRefusedByModeAndByCredentials) {
    if (::geteuid() != 0)
        GTEST_SKIP() << "needs root to become somebody else";
    path_ = directory_ + "/control.sock";
    start();
    const std::string by_directory = as_uid(65534, [&] {
        return ask(path_, {{"n", 1}}, 1s).error().message;
    });
    EXPECT_NE(by_directory.find("uid 0"), std::string::npos) << by_directory;
    ::chmod(directory_.c_str(), 0755);
    const std::string by_mode = as_uid(65534, [&] { return ask(path_, {{"n", 1}}, 1s).error().message; });
    EXPECT_NE(by_mode.find("uid 0"), std::string::npos) << by_mode;
    ::chmod(path_.c_str(), 0666);
    std::string by_credentials;
    std::atomic<bool> done = false;
    std::jthread client([&] {
        by_credentials = as_uid(65534, [&] {
            const auto answer = ask(path_, {{"n", 1}}, 5s);
            return answer ? answer->dump() : "error: " + answer.error().message;
        });
        done = true;
    });
    pump([&] { return done.load(); });
    EXPECT_NE(by_credentials.find("permission denied: uid 65534"), std::string::npos) << by_credentials;
    EXPECT_EQ(handled_, 0);
}

} // namespace
} // namespace syngate
