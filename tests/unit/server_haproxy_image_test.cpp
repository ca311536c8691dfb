// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/haproxy_image.hpp"

#include "cli/options.hpp"
#include "iptables/program.hpp"
#include "server_test_support.hpp"

namespace syngate {
namespace {

const Argv with_default{"haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"};

TEST(HaproxyImage, RunsHaproxyWithTheImagesConfiguration) {
    const auto none = image_command({});
    EXPECT_TRUE(none.supervised);
    EXPECT_EQ(none.argv, with_default);
    const auto options = image_command({"-dM", "-n", "1000"});
    EXPECT_TRUE(options.supervised);
    EXPECT_EQ(options.argv,
              (Argv{"haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg", "-dM", "-n", "1000"}));
}

TEST(HaproxyImage, ArgumentsNameAnotherConfiguration) {
    EXPECT_EQ(image_command({"-f", "/a.cfg"}).argv, (Argv{"haproxy", "-f", "/a.cfg"}));
    EXPECT_EQ(image_command({"-dM", "--", "/a.cfg"}).argv, (Argv{"haproxy", "-dM", "--", "/a.cfg"}));
}

TEST(HaproxyImage, QuestionsAndOtherCommandsAreExecutedAsTheyAre) {
    for (const char* question : {"-c", "-cc", "-v", "-vv", "-vq", "-h", "--help", "-dC", "-dMhelp"}) {
        const auto asked = image_command({question});
        EXPECT_FALSE(asked.supervised) << question;
        EXPECT_EQ(asked.argv.front(), "haproxy") << question;
    }
    for (const Argv& command : {Argv{"sh", "-c", "true"}, Argv{"haproxy", "-f", "x"}, Argv{""}}) {
        const auto other = image_command(command);
        EXPECT_FALSE(other.supervised) << command.front();
        EXPECT_EQ(other.argv, command);
    }
}

// As manifests for HAProxy's own image name it: nothing looks after it, which nobody would notice.
TEST(HaproxyImage, AnHaproxyThatIsExecutedAsItIsIsWarnedOf) {
    for (const Argv& command :
         {Argv{"haproxy", "-f", "x"}, Argv{"/usr/sbin/haproxy", "-W", "-db", "-f", "x"}})
        EXPECT_NE(unsupervised_warning(command).find("no gate, no reload"), std::string::npos);
    for (const Argv& command :
         {Argv{"haproxy", "-c"}, Argv{"haproxy", "-vv"}, Argv{"sh", "-c", "haproxy"}, Argv{""}, Argv{}})
        EXPECT_EQ(unsupervised_warning(command), "");
}

TEST(HaproxyImage, TheWarningIsOneLineOnStandardError) {
    const std::string program = SYNGATE_BUILD_DIR "/syngate";
    const auto bare =
        run_program({program, "entrypoint", "/nowhere/haproxy", "-f", "x"}, "", std::chrono::seconds(10));
    ASSERT_TRUE(bare) << bare.error().message;
    EXPECT_EQ(bare->status, 2);
    EXPECT_NE(bare->err.find("executing '/nowhere/haproxy -f x' as it is"), std::string::npos) << bare->err;
    EXPECT_EQ(bare->out, "");
    const auto question =
        run_program({program, "entrypoint", "/nowhere/haproxy", "-c"}, "", std::chrono::seconds(10));
    ASSERT_TRUE(question) << question.error().message;
    EXPECT_EQ(question->err.find("warning"), std::string::npos) << question->err;
}

// They say something and serve, or are values.
TEST(HaproxyImage, WhatOnlyLooksLikeAQuestionIsServed) {
    for (const Argv& arguments :
         {Argv{"-dKall"}, Argv{"-dL"}, Argv{"-V"}, Argv{"-L", "-c"}, Argv{"-C", "/", "-f", "/a.cfg"}})
        EXPECT_TRUE(image_command(arguments).supervised) << arguments.front();
    EXPECT_FALSE(image_command({"-cc", "version_atleast(2.4)"}).supervised);
}

struct HaproxyImageIdentity : testing::Test {
    test::TempDir dir;
    ImagePaths paths;
    HaproxyImageIdentity() {
        paths.share = (dir / "").string();
        paths.share.pop_back();
        for (const char* name : {"user.cfg", "group.cfg", "setcap.cfg"})
            dir.write(name, "global\n");
    }
    // The files that are put in front.
    Argv files(const std::string& configuration) {
        paths.configuration = dir.write("haproxy.cfg", configuration);
        const auto command = image_command({}, paths);
        warning = command.warning;
        Argv names;
        for (std::size_t i = 2; i < command.argv.size(); i += 2)
            names.push_back(std::filesystem::path(command.argv[i]).filename());
        EXPECT_EQ(names.back(), "haproxy.cfg");
        names.pop_back();
        return names;
    }
    std::string warning;
};

TEST_F(HaproxyImageIdentity, IsTheConfigurationsOwnWhereItHasOne) {
    EXPECT_EQ(files("global\n  maxconn 10\n"), (Argv{"user.cfg", "group.cfg"}));
    EXPECT_EQ(files("global\n  user nobody\n"), Argv{});
    EXPECT_EQ(files("global\n  uid 7\n  gid 7\n"), Argv{});
    EXPECT_EQ(files("global\n  group nogroup\n"), Argv{"user.cfg"});
    EXPECT_EQ(files("defaults\nglobal\n  user nobody # late\n"), Argv{});
}

TEST_F(HaproxyImageIdentity, AUserlistHasUsersOfItsOwn) {
    EXPECT_EQ(files("global\nuserlist u\n  group g\n  user tom\n"), (Argv{"user.cfg", "group.cfg"}));
}

TEST_F(HaproxyImageIdentity, OfTransparentSocketsKeepsACapabilityOrStaysRoot) {
    const std::string transparent = "listen a\n  source 0.0.0.0 usesrc clientip\n";
    EXPECT_EQ(files(transparent), (Argv{"user.cfg", "group.cfg", "setcap.cfg"}));
    EXPECT_EQ(warning, "");
    std::filesystem::remove(dir / "setcap.cfg");
    EXPECT_EQ(files(transparent), Argv{});
    EXPECT_NE(warning.find("stays root"), std::string::npos) << warning;
}

TEST(HaproxyImage, EntrypointParsesNoArgumentItself) {
    const char* words[] = {"syngate", "entrypoint", "ls", "--help", "--", "x"};
    const auto options = parse_options(6, words);
    ASSERT_TRUE(options) << options.error().message;
    EXPECT_EQ(options->verb, "entrypoint");
    EXPECT_EQ(options->command, (Argv{"ls", "--help", "--", "x"}));
    const char* run[] = {"syngate", "entrypoint", "-f", "/a.cfg"};
    const auto supervised = parse_options(4, run);
    ASSERT_TRUE(supervised) << supervised.error().message;
    EXPECT_EQ(supervised->verb, "run");
    EXPECT_EQ(supervised->command, (Argv{"haproxy", "-f", "/a.cfg"}));
}

} // namespace
} // namespace syngate
