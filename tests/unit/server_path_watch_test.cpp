// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/path_watch.hpp"

#include "server/path_look.hpp"
#include "server_test_support.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
constexpr Duration quiet = 30ms;

struct PathWatchTest : testing::Test {
    std::unique_ptr<Loop> loop = *Loop::make();
    test::TempDir dir;
    std::unique_ptr<PathWatch> watch;
    int changes = 0;

    void start(const std::vector<std::string>& paths) {
        auto started = PathWatch::start(*loop, paths, quiet, [this] { ++changes; });
        ASSERT_TRUE(started) << started.error().message;
        watch = std::move(*started);
    }
    bool noticed(int times = 1) {
        return loop->run_until([&] { return changes >= times; }, Clock::now() + 5s);
    }
    // That nothing comes can only be seen by giving it time to come.
    bool silent(int times = 0) {
        return !loop->run_until([&] { return changes > times; }, Clock::now() + 5 * quiet);
    }
    void replace(const std::string& name, const std::string& text) {
        dir.write("new." + name, text);
        fs::rename(dir / ("new." + name), dir / name);
    }
};

TEST_F(PathWatchTest, AMissingPathIsAUsageError) {
    const auto started = PathWatch::start(*loop, {dir / "missing"}, quiet, [] {});
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().exit, Exit::usage);
    EXPECT_NE(started.error().message.find("missing"), std::string::npos);
}

TEST_F(PathWatchTest, DirectoryEditInPlace) {
    const auto file = dir.write("a.cfg", "1");
    start({dir.path()});
    EXPECT_TRUE(silent());
    std::ofstream(file) << "2";
    EXPECT_TRUE(noticed());
}

TEST_F(PathWatchTest, DirectoryRenameOverNewAndRemoved) {
    const test::TempDir elsewhere;
    dir.write("a.cfg", "1");
    start({dir.path()});
    fs::rename(elsewhere.write("tmp", "2"), dir / "a.cfg");
    EXPECT_TRUE(noticed(1));
    dir.write("b.cfg", "1");
    EXPECT_TRUE(noticed(2));
    fs::remove(dir / "b.cfg");
    EXPECT_TRUE(noticed(3));
}

TEST_F(PathWatchTest, ABurstIsOneChange) {
    start({dir.path()});
    for (int i = 0; i < 20; ++i)
        dir.write("a.cfg", std::to_string(i));
    EXPECT_TRUE(noticed());
    EXPECT_TRUE(silent(1));
}

TEST_F(PathWatchTest, EditorsOwnFilesAreIgnored) {
    start({dir.path()});
    for (const char* name : {".a.cfg.swp", "a.cfg~", ".#a.cfg", "a.swp", "..data_tmp"})
        dir.write(name, "x");
    EXPECT_TRUE(silent());
}

TEST_F(PathWatchTest, ReadingAndAttributesAreNoChange) {
    const auto file = dir.write("a.cfg", "1");
    start({dir.path(), file});
    fs::permissions(file, fs::perms::owner_read);
    std::string text;
    std::ifstream(file) >> text;
    EXPECT_EQ(text, "1");
    EXPECT_TRUE(silent());
}

TEST_F(PathWatchTest, SubdirectoriesAreWatchedAsTheDirectory) {
    fs::create_directories(dir / "certs/old");
    dir.write("certs/a.pem", "1");
    start({dir.path()});
    std::ofstream(dir / "certs/a.pem") << "2";
    EXPECT_TRUE(noticed(1));
    fs::rename(dir.write("certs/.b.pem.new", "1"), dir / "certs/b.pem");
    EXPECT_TRUE(noticed(2));
    dir.write("certs/old/c.pem", "1");
    EXPECT_TRUE(noticed(3));
    fs::rename(dir / "certs/old", dir / "certs/new");
    EXPECT_TRUE(noticed(4));
    std::ofstream(dir / "certs/new/c.pem") << "2";
    EXPECT_TRUE(noticed(5));
    EXPECT_TRUE(silent(5));
}

TEST_F(PathWatchTest, ADirectoryThatComesLaterIsWatched) {
    start({dir.path()});
    fs::create_directories(dir / "conf.d/more");
    dir.write("conf.d/more/a.cfg", "1");
    EXPECT_TRUE(noticed(1));
    EXPECT_TRUE(silent(changes));
    const int before = changes;
    std::ofstream(dir / "conf.d/more/a.cfg") << "2";
    EXPECT_TRUE(noticed(before + 1));
    const test::TempDir elsewhere;
    elsewhere.write("b.cfg", "1");
    fs::create_directory_symlink(elsewhere.path(), dir / "linked");
    EXPECT_TRUE(noticed(before + 2));
    std::ofstream(elsewhere / "b.cfg") << "2";
    EXPECT_TRUE(noticed(before + 3));
}

TEST_F(PathWatchTest, HiddenDirectoriesAreNotLookedInto) {
    fs::create_directories(dir / ".git/refs");
    start({dir.path()});
    dir.write(".git/refs/main", "1");
    fs::create_directory(dir / ".cache");
    dir.write(".cache/a", "1");
    EXPECT_TRUE(silent());
}

// As many and as deep as is promised, and what is beyond is named.
TEST_F(PathWatchTest, DirectoriesAreBoundedInDepth) {
    std::string deepest = "0";
    for (int depth = 1; depth < watch_depth; ++depth)
        deepest += fmt::format("/{}", depth);
    fs::create_directories(dir / (deepest + "/beyond/further"));
    start({dir.path()});
    dir.write(deepest + "/beyond/a.cfg", "1");
    dir.write(deepest + "/beyond/further/a.cfg", "1");
    EXPECT_TRUE(silent());
    dir.write(deepest + "/a.cfg", "1");
    EXPECT_TRUE(noticed());
    const auto left_out = look_at_paths({dir.path()}).plan.left_out;
    ASSERT_EQ(left_out.size(), 1U);
    EXPECT_EQ(left_out.begin()->first, (dir / (deepest + "/beyond")).string());
}

TEST_F(PathWatchTest, DirectoriesAreBoundedInNumber) {
    for (std::size_t i = 0; i < watch_directories + 2; ++i)
        fs::create_directory(dir / fmt::format("{:03}", i));
    fs::create_directory(dir / "000/deeper"); // the nearest come first
    start({dir.path()});
    dir.write(fmt::format("{:03}/a.cfg", watch_directories - 1), "1");
    EXPECT_TRUE(silent());
    dir.write(fmt::format("{:03}/a.cfg", watch_directories - 2), "1");
    EXPECT_TRUE(noticed());
    const auto looked = look_at_paths({dir.path()}).plan;
    EXPECT_EQ(looked.left_out.size(), 4U);
    EXPECT_TRUE(looked.left_out.contains(dir / "000/deeper"));
    EXPECT_EQ(std::ranges::count_if(looked.directories, [](const auto& each) { return each.second.all; }),
              static_cast<std::ptrdiff_t>(watch_directories));
}

TEST_F(PathWatchTest, ALinkUpwardsLeadsToNothingNew) {
    fs::create_directories(dir / "watched/sub");
    fs::create_directory(dir / "beside");
    fs::create_directory_symlink("..", dir / "watched/sub/up");
    fs::create_directory_symlink("../..", dir / "watched/sub/further");
    start({dir / "watched"});
    dir.write("beside/a", "1");
    EXPECT_TRUE(silent());
    dir.write("watched/sub/a.cfg", "1");
    EXPECT_TRUE(noticed());
    EXPECT_TRUE(silent(1));
}

// The server may do without it; without the directory that is named nothing would be noticed.
TEST_F(PathWatchTest, ASubdirectoryThatMayNotBeReadIsLeftOut) {
    if (geteuid() != 0)
        GTEST_SKIP() << "another user's directory takes root";
    fs::create_directory(dir / "private");
    fs::permissions(dir / "private", fs::perms::owner_all);
    fs::permissions(dir.path(), fs::perms(0755));
    ASSERT_EQ(seteuid(65534), 0);
    const auto outside = PathWatch::start(*loop, {dir.path()}, quiet, [this] { ++changes; });
    const auto inside = PathWatch::start(*loop, {dir / "private"}, quiet, [] {});
    ASSERT_EQ(seteuid(0), 0);
    ASSERT_TRUE(outside) << outside.error().message;
    dir.write("a.cfg", "1");
    EXPECT_TRUE(noticed());
    ASSERT_FALSE(inside);
    EXPECT_NE(inside.error().message.find("Permission denied"), std::string::npos) << inside.error().message;
}

TEST_F(PathWatchTest, SingleFileEditInPlaceAndUnrelatedNeighbour) {
    const auto file = dir.write("a.cfg", "1");
    start({file});
    dir.write("b.cfg", "1");
    fs::remove(dir / "b.cfg");
    EXPECT_TRUE(silent());
    std::ofstream(file) << "2";
    EXPECT_TRUE(noticed());
}

TEST_F(PathWatchTest, SingleFileReplacedAgainAndAgain) {
    const auto file = dir.write("a.cfg", "0");
    start({file});
    for (int i = 1; i <= 3; ++i) {
        replace("a.cfg", std::to_string(i));
        EXPECT_TRUE(noticed(i)) << i;
    }
    std::ofstream(file) << "in place";
    EXPECT_TRUE(noticed(4));
}

// As for a bind mount of one file: the directory that we look at sees nothing, only the inode is written to.
TEST_F(PathWatchTest, SingleFileWrittenThroughAnotherDirectory) {
    const test::TempDir elsewhere;
    const auto file = dir.write("a.cfg", "0");
    fs::create_hard_link(file, elsewhere / "same");
    start({file});
    std::ofstream(elsewhere / "same") << "1";
    EXPECT_TRUE(noticed(1));
    // After a replacement the old inode is no longer ours, the new one is.
    replace("a.cfg", "2");
    EXPECT_TRUE(noticed(2));
    std::ofstream(elsewhere / "same") << "3";
    EXPECT_TRUE(silent(2));
    fs::create_hard_link(file, elsewhere / "new");
    std::ofstream(elsewhere / "new") << "4";
    EXPECT_TRUE(noticed(3));
}

TEST_F(PathWatchTest, FileRemovedAndMadeAgainWithItsDirectory) {
    fs::create_directories(dir / "x/y");
    const auto file = dir.write("x/y/a.cfg", "0");
    start({file});
    fs::remove_all(dir / "x");
    EXPECT_TRUE(noticed(1));
    fs::create_directories(dir / "x/y");
    dir.write("x/y/a.cfg", "1");
    EXPECT_TRUE(noticed(2));
    EXPECT_TRUE(silent(changes));
    const int before = changes;
    std::ofstream(file) << "2";
    EXPECT_TRUE(noticed(before + 1));
}

struct KubernetesVolume : PathWatchTest {
    std::string below; // where the volume is in the directory
    void generation(const std::string& name, const std::string& text) {
        fs::create_directory(dir / (below + name));
        dir.write(below + name + "/a.cfg", text);
        fs::create_directory_symlink(name, dir / (below + "..data_tmp"));
        fs::rename(dir / (below + "..data_tmp"), dir / (below + "..data"));
    }
    void SetUp() override {
        generation("..2024_1", "1");
        fs::create_symlink("..data/a.cfg", dir / (below + "a.cfg"));
    }
    void swap_twice() {
        generation("..2024_2", "2");
        EXPECT_TRUE(noticed(1)); // by the swap, not by the end of the old files
        fs::remove_all(dir / (below + "..2024_1"));
        EXPECT_TRUE(silent(1));
        generation("..2024_3", "3");
        EXPECT_TRUE(noticed(2));
    }
};

TEST_F(KubernetesVolume, DirectorySwapIsNoticedOnceEachTime) {
    start({dir.path()});
    swap_twice();
}

TEST_F(KubernetesVolume, FileSwapIsNoticedOnceEachTime) {
    start({dir / "a.cfg"});
    swap_twice();
}

struct KubernetesVolumeBelow : KubernetesVolume {
    KubernetesVolumeBelow() {
        below = "certs/";
        fs::create_directory(dir / below);
    }
};

// A Secret that is mounted below the directory.
TEST_F(KubernetesVolumeBelow, SwapIsNoticedOnceEachTime) {
    start({dir.path()});
    swap_twice();
}

// `items` of a volume may have a path with a directory: the top has a link to that.
TEST_F(KubernetesVolume, DirectoryBehindTheSwappedLinkIsFollowed) {
    for (const char* name : {"..2024_1/certs", "..2024_2/certs"}) {
        fs::create_directories(dir / name);
        dir.write(std::string(name) + "/a.pem", "1");
    }
    fs::create_symlink("..data/certs", dir / "certs");
    start({dir.path()});
    std::ofstream(dir / "certs/a.pem") << "2";
    EXPECT_TRUE(noticed(1));
    generation("..2024_2", "2");
    EXPECT_TRUE(noticed(2));
    fs::remove_all(dir / "..2024_1");
    EXPECT_TRUE(silent(2));
    dir.write("..2024_2/certs/b.pem", "1");
    EXPECT_TRUE(noticed(3));
}

struct ServersOwnFiles : PathWatchTest {
    Fd bind_socket(const std::string& name) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::ranges::copy((dir / name).native(), address.sun_path);
        Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        return fd;
    }
    // As HAProxy makes a `stats socket` at each start: bound under a name of its own, the old one is kept
    // until the new one is in its place.
    Fd make_stats_socket(int pid) {
        const std::string draft = fmt::format("admin.sock.{}.tmp", pid);
        const std::string old = fmt::format("admin.sock.{}.bak", pid);
        Fd fd = bind_socket(draft);
        fs::permissions(dir / draft, fs::perms(0660));
        if (fs::exists(dir / "admin.sock"))
            fs::create_hard_link(dir / "admin.sock", dir / old);
        fs::rename(dir / draft, dir / "admin.sock");
        fs::remove(dir / old);
        return fd;
    }
};

TEST_F(ServersOwnFiles, SocketsMadeAtEachStartAreNoChange) {
    const auto file = dir.write("haproxy.cfg", "1");
    start({dir.path()});
    const Fd first = make_stats_socket(7);
    EXPECT_TRUE(silent());
    const Fd second = make_stats_socket(8);
    EXPECT_TRUE(silent());
    std::ofstream(file) << "2"; // beside them a change is one
    const Fd third = make_stats_socket(9);
    EXPECT_TRUE(noticed());
    fs::remove(dir / "admin.sock");
    EXPECT_TRUE(silent(1));
}

TEST_F(ServersOwnFiles, PipesAndPidFilesAreNoChange) {
    start({dir.path()});
    ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
    const Fd reading(open((dir / "pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    std::ofstream(dir / "pipe") << "x";
    fs::rename(dir.write(".haproxy.pid.7", "7"), dir / "haproxy.pid");
    std::ofstream(dir / "haproxy.pid") << "8";
    EXPECT_TRUE(silent());
}

// A file that is masked by a device: everybody writes to that.
TEST_F(ServersOwnFiles, ADeviceBehindALinkIsNotWatched) {
    fs::create_symlink("/dev/null", dir / "masked.cfg");
    start({dir.path()});
    std::ofstream("/dev/null") << "x";
    EXPECT_TRUE(silent());
}

TEST_F(PathWatchTest, WhatCameAndWentIsNoChange) {
    start({dir.path()});
    dir.write("draft.cfg", "1");
    fs::remove(dir / "draft.cfg");
    fs::create_directory(dir / "empty");
    EXPECT_TRUE(silent());
}

// A clock that is too coarse to tell two writes apart.
TEST_F(PathWatchTest, AFileWrittenInTheSameInstantAndOfTheSameSizeIsAChange) {
    const auto file = dir.write("a.cfg", "1");
    const auto when = fs::last_write_time(file);
    start({dir.path()});
    std::ofstream(file) << "2";
    fs::last_write_time(file, when);
    EXPECT_TRUE(noticed(1));
    start({file});
    std::ofstream(file) << "3";
    fs::last_write_time(file, when);
    EXPECT_TRUE(noticed(2));
}

TEST_F(PathWatchTest, AFileOfTheSameSizeAndTimeInTheOldOnesPlaceIsAChange) {
    const auto file = dir.write("a.cfg", "1");
    const auto draft = dir.write(".a.cfg.new", "2");
    fs::last_write_time(draft, fs::last_write_time(file));
    start({dir.path()});
    fs::rename(draft, file);
    EXPECT_TRUE(noticed());
}

TEST_F(PathWatchTest, LinkedFilesElsewhereAreFollowed) {
    const test::TempDir available;
    available.write("site", "1");
    fs::create_symlink(available / "site", dir / "site");
    start({dir.path()});
    fs::rename(available.write("tmp", "2"), available / "site");
    EXPECT_TRUE(noticed(1));
    std::ofstream(available / "site") << "3";
    EXPECT_TRUE(noticed(2));
}

TEST_F(PathWatchTest, TheCallbackMayEndTheWatch) {
    auto started = PathWatch::start(*loop, {dir.path()}, quiet, [this] {
        watch.reset();
        ++changes;
    });
    ASSERT_TRUE(started);
    watch = std::move(*started);
    dir.write("a.cfg", "1");
    EXPECT_TRUE(noticed());
    EXPECT_FALSE(watch);
}

} // namespace
} // namespace syngate
