// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/haproxy_image.hpp"

#include "cli/options.hpp"
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
    for (const char* question : {"-c", "-v", "-vv", "-h"}) {
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
