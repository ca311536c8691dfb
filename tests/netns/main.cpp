// SPDX-License-Identifier: GPL-2.0-or-later
// Of the live tiers.
#include "netns/sandbox.hpp"

#include <gtest/gtest.h>

int main(int argc, char** argv) {
    ::testing::InitGoogleTest(&argc, argv);
    if (GTEST_FLAG_GET(list_tests))
        return RUN_ALL_TESTS();
    return syngate::live::in_sandbox([] { return RUN_ALL_TESTS(); });
}
