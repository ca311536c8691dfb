// SPDX-License-Identifier: GPL-2.0-or-later
// Which rules follow from which sockets.
#include "steer/slots.hpp"
#include "steer/steer_rules.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <gtest/gtest.h>

namespace syngate {
namespace {

std::uint64_t cookies = 0;

Listener on(const std::string& address, std::uint16_t port = 80) {
    Listener l;
    l.ipv6 = address.find(':') != address.npos;
    EXPECT_EQ(inet_pton(l.ipv6 ? AF_INET6 : AF_INET, address.c_str(), l.address.data()), 1);
    l.port = port;
    l.cookie = ++cookies;
    return l;
}
Listener six_only(const std::string& address) {
    Listener l = on(address);
    l.ipv6_only = true;
    return l;
}
Listener on_device(const std::string& address) {
    Listener l = on(address);
    l.device = 7;
    return l;
}

// "10.0.0.1:80 1 2", with the sockets' numbers counted from the call's first; no number: exempt.
using Told = std::vector<std::string>;
Told rules(const std::vector<Listener>& ours, const std::vector<Listener>& others = {},
           std::uint16_t port = 80) {
    std::vector<Destination> wanted;
    for (const Listener& l : ours)
        wanted.push_back({port, l});
    const auto made = make_steer_rules(wanted, others);
    if (!made)
        return {made.error().message};
    Told told;
    for (const SteerRule& rule : *made) {
        std::string text = to_string(rule.at);
        for (const Listener& to : rule.to)
            text +=
                " " + std::to_string(std::ranges::find(ours, to.cookie, &Listener::cookie) - ours.begin());
        told.push_back(text);
    }
    return told;
}

TEST(SteerRules, OneRuleAnAddressWithAllItsSockets) {
    EXPECT_EQ(rules({on("10.0.0.1"), on("10.0.0.1"), on("10.0.0.2")}),
              (Told{"10.0.0.1:80 0 1", "10.0.0.2:80 2"}));
    EXPECT_EQ(rules({on("0.0.0.0"), six_only("::")}), (Told{"0.0.0.0:80 0", "[::]:80 1"}));
}

TEST(SteerRules, ADualStackSocketGetsWhatComesOverIpv4) {
    EXPECT_EQ(rules({on("::"), on("::")}), (Told{"0.0.0.0:80 0 1", "[::]:80 0 1"}));
    EXPECT_EQ(rules({on("2001:db8::1")}), (Told{"[2001:db8::1]:80 0"}));
    EXPECT_EQ(rules({on("::ffff:10.0.0.1")}), (Told{"10.0.0.1:80 0"}));
}

TEST(SteerRules, AnIpv4SocketGoesBeforeADualStackOneWhoeverHasIt) {
    EXPECT_EQ(rules({on("::"), on("0.0.0.0")}), (Told{"0.0.0.0:80 1", "[::]:80 0"}));
    EXPECT_EQ(rules({on("::")}, {on("0.0.0.0")}), (Told{"0.0.0.0:80", "[::]:80 0"}));
}

TEST(SteerRules, WhatOthersHaveIsLeftToThem) {
    EXPECT_EQ(rules({on("0.0.0.0")}, {on("10.0.0.2"), on("10.0.0.3", 81), on("2001:db8::1")}),
              (Told{"0.0.0.0:80 0", "10.0.0.2:80"}));
    EXPECT_EQ(rules({on("::")}, {on("10.0.0.2"), on("2001:db8::1")}),
              (Told{"0.0.0.0:80 0", "10.0.0.2:80", "[::]:80 0", "[2001:db8::1]:80"}));
    EXPECT_EQ(rules({on("10.0.0.1")}, {on("0.0.0.0"), on("::")}), (Told{"10.0.0.1:80 0"}));
    // In the same group as ours: the generation is what was asked for.
    EXPECT_EQ(rules({on("10.0.0.1")}, {on("10.0.0.1")}), (Told{"10.0.0.1:80 0"}));
}

TEST(SteerRules, ASocketThatIsBoundToADeviceIsNamed) {
    for (const Told& told : {rules({on_device("10.0.0.1")}), rules({on("0.0.0.0")}, {on_device("10.0.0.1")}),
                             rules({on("10.0.0.1")}, {on_device("10.0.0.1")})}) {
        ASSERT_EQ(told.size(), 1U);
        EXPECT_NE(told.front().find("10.0.0.1:80 is bound to a device"), std::string::npos) << told.front();
    }
    EXPECT_EQ(rules({on("10.0.0.1")}, {on_device("10.0.0.2")}), (Told{"10.0.0.1:80 0"}));
}

TEST(SteerRules, AnotherPortsSocketIsSteeredTo) {
    EXPECT_EQ(rules({on("0.0.0.0", 8081)}), (Told{"0.0.0.0:80 0"}));
}

TEST(SteerSlots, RunsAreTakenAndGivenBack) {
    Slots slots(8);
    EXPECT_EQ(slots.take(3), 0U);
    EXPECT_EQ(slots.take(3), 3U);
    EXPECT_EQ(slots.take(3), std::nullopt);
    EXPECT_EQ(slots.take(2), 6U);
    slots.give_back(0, 3);
    EXPECT_EQ(slots.take(4), std::nullopt);
    EXPECT_EQ(slots.take(2), 0U);
}

} // namespace
} // namespace syngate
