// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/clock.hpp"
#include "base/ports.hpp"

#include <gtest/gtest.h>

namespace syngate {

TEST(Ports, ListsAndRangesAreParsedAndFoldedAgain) {
    EXPECT_EQ(format_ports(*parse_ports("443,80,8000-8010,81")), "80,81,443,8000-8010");
    EXPECT_EQ(parse_ports("1-65535")->size(), 65535U);
    EXPECT_EQ(format_ports({}), "none");
}

TEST(Ports, BadOnesAreUsageErrorsThatNameTheElement) {
    for (const char* text :
         {"", "0", "65536", "80,", ",80", "80,,81", "90-80", "-1", "http", "80 ", "+80", "1-2-3"}) {
        const auto ports = parse_ports(text);
        ASSERT_FALSE(ports) << text;
        EXPECT_EQ(ports.error().exit, Exit::usage) << text;
        EXPECT_NE(ports.error().message.find('\''), std::string::npos) << ports.error().message;
    }
}

TEST(Durations, AreParsedWithTheirUnits) {
    using namespace std::chrono_literals;
    EXPECT_EQ(*parse_duration("3s"), 3s);
    EXPECT_EQ(*parse_duration("1.5"), 1500ms);
    EXPECT_EQ(*parse_duration("250ms"), 250ms);
    EXPECT_EQ(*parse_duration("40us"), 40us);
    EXPECT_EQ(*parse_duration("5m"), 5min);
    EXPECT_EQ(*parse_duration("1h"), 1h);
    EXPECT_EQ(*parse_duration("0"), 0s);
}

TEST(Durations, BadOnesAreUsageErrors) {
    for (const char* text : {"", "s", "-1s", "3 s", "3sec", "inf", "nan", "1e30s"}) {
        const auto d = parse_duration(text);
        ASSERT_FALSE(d) << text;
        EXPECT_EQ(d.error().exit, Exit::usage) << text;
    }
}

TEST(Durations, AreWrittenShort) {
    using namespace std::chrono_literals;
    EXPECT_EQ(format_duration(3s), "3s");
    EXPECT_EQ(format_duration(1250us), "1.25ms");
    EXPECT_EQ(format_duration(40us), "40us");
}

} // namespace syngate
