// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/backing_ports.hpp"

#include <gtest/gtest.h>

namespace syngate {
namespace {

TEST(BackingPorts, TwoArePicked) {
    const auto ports = pick_backing_ports();
    ASSERT_TRUE(ports) << ports.error().message;
    EXPECT_EQ(ports->size(), 2U);
}

TEST(BackingPorts, TheMarkIsReplacedWhereverItStands) {
    EXPECT_EQ(with_backing_port(
                  {"server", "--listen=[::]:{SYNGATE_PORT}", "{SYNGATE_PORT}{SYNGATE_PORT}", "{PORT}"}, 8081),
              (Argv{"server", "--listen=[::]:8081", "80818081", "{PORT}"}));
}

} // namespace
} // namespace syngate
