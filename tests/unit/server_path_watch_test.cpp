// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/path_watch.hpp"

#include "server_test_support.hpp"

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
    void generation(const std::string& name, const std::string& text) {
        fs::create_directory(dir / name);
        dir.write(name + "/a.cfg", text);
        fs::create_directory_symlink(name, dir / "..data_tmp");
        fs::rename(dir / "..data_tmp", dir / "..data");
    }
    void SetUp() override {
        generation("..2024_1", "1");
        fs::create_symlink("..data/a.cfg", dir / "a.cfg");
    }
    void swap_twice() {
        generation("..2024_2", "2");
        EXPECT_TRUE(noticed(1)); // by the swap, not by the end of the old files
        fs::remove_all(dir / "..2024_1");
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
