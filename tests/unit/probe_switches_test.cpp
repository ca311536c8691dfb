// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/switches.hpp"

#include <cstdlib>
#include <gtest/gtest.h>

namespace syngate {
namespace {

class Switches : public testing::Test {
protected:
    ~Switches() override { ::unsetenv("SYNGATE_NO_FEATURE"); }
    static void set(const char* value) { ::setenv("SYNGATE_NO_FEATURE", value, 1); }
};

TEST_F(Switches, NameFeatures) {
    EXPECT_FALSE(switched_off(feature::bpf));
    EXPECT_TRUE(check_switches());
    set("");
    EXPECT_TRUE(check_switches());
    set("tc,,xt_time,");
    EXPECT_TRUE(check_switches());
    EXPECT_TRUE(switched_off(feature::tc));
    EXPECT_TRUE(switched_off(feature::xt_time));
    EXPECT_FALSE(switched_off(feature::tcx)); // "tc" is another one
    for (const std::string_view name : feature::all) {
        set(std::string(name).c_str());
        EXPECT_TRUE(switched_off(name)) << name;
        EXPECT_TRUE(check_switches()) << name;
    }
}

TEST_F(Switches, UnknownNamesAreBadInput) {
    set("bpf,warp");
    const auto r = check_switches();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().exit, Exit::usage);
    EXPECT_NE(r.error().message.find("'warp'"), std::string::npos) << r.error().message;
    EXPECT_NE(r.error().message.find("tcx, tc,"), std::string::npos) << r.error().message;
}

} // namespace
} // namespace syngate
