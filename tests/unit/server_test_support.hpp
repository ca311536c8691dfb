// SPDX-License-Identifier: GPL-2.0-or-later
// What the server_*_test.cpp share.
#pragma once

#include "base/fd.hpp"
#include "event/loop.hpp"
#include "server/children.hpp"

#include <array>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <signal.h>
#include <sstream>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>

namespace syngate::test {

// A directory that goes away with its contents.
class TempDir {
public:
    TempDir() {
        std::string name = std::filesystem::temp_directory_path() / "syngate-test-XXXXXX";
        if (mkdtemp(name.data()))
            path_ = name;
    }
    ~TempDir() {
        std::error_code error;
        std::filesystem::remove_all(path_, error);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    std::filesystem::path write(const std::string& name, const std::string& text) const {
        const auto file = path_ / name;
        std::ofstream(file) << text;
        return file;
    }

private:
    std::filesystem::path path_;
};

// How long the task may keep a processor that others wait for, in ns; before Linux 6.12 always 0.
inline std::uint64_t turn_of(pid_t task) {
    std::array<std::uint64_t, 6>
        attributes{}; // struct sched_attr, first version; sched_runtime is the fourth
    return ::syscall(SYS_sched_getattr, task, attributes.data(), sizeof attributes, 0U) < 0 ? ~0ULL
                                                                                            : attributes[3];
}
// As take_short_turns() makes it.
inline std::uint64_t short_turn() {
    return turn_of(getpid()) == 0 ? 0 : 100'000;
}

// A loop with children; bounded waits.
struct LoopWithChildren : testing::Test {
    std::unique_ptr<Loop> loop = *Loop::make();
    std::unique_ptr<Children> children = *Children::start(*loop);

    static Time soon(Duration d = std::chrono::seconds(10)) { return Clock::now() + d; }
    bool wait_for(const std::function<bool()>& done) {
        return loop->run_until(done, soon(), std::chrono::milliseconds(5));
    }
    bool wait_for_end(pid_t pid) {
        return wait_for([&] { return children->status(pid).has_value(); });
    }
    // Reaped by the subreaper, that is, by us.
    bool wait_until_gone(pid_t pid) {
        return wait_for([&] { return kill(pid, 0) < 0 && errno == ESRCH; });
    }
    // Starts a program and reads `count` numbers that it writes first.
    std::vector<pid_t> spawn_and_read(const Argv& argv, std::size_t count, pid_t& pid) {
        std::array<int, 2> ends{};
        EXPECT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
        const Fd reading(ends[0]);
        Fd writing(ends[1]);
        SpawnOptions options;
        options.output = writing.get();
        const auto spawned = children->spawn(argv, options);
        EXPECT_TRUE(spawned) << spawned.error().message;
        pid = spawned.value_or(-1);
        writing.reset();
        std::string text;
        for (char c = 0; count > 0 && read(reading.get(), &c, 1) == 1;) {
            text += c;
            count -= c == '\n' ? 1 : 0;
        }
        std::istringstream stream(text);
        std::vector<pid_t> pids;
        for (pid_t number = 0; stream >> number;)
            pids.push_back(number);
        return pids;
    }
};

} // namespace syngate::test
