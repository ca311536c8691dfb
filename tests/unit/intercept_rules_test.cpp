// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/intercept.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

namespace syngate {
namespace {

// "::ffff:10.0.0.0/104 80=8080"
std::string read(const std::string& text) {
    const auto rule = parse_intercept(text);
    if (!rule)
        return rule.error().exit == Exit::usage ? "usage" : "another error";
    char address[INET6_ADDRSTRLEN] = "";
    inet_ntop(AF_INET6, rule->prefix.address.data(), address, sizeof address);
    return fmt::format("{}/{} {}={}", address, rule->prefix.bits, rule->port, rule->listen_port);
}

TEST(InterceptRule, HasAPrefixOrNone) {
    EXPECT_EQ(read("80=8080"), "::/0 80=8080");
    EXPECT_EQ(read("10.0.0.0/8:80=8080"), "::ffff:10.0.0.0/104 80=8080");
    EXPECT_EQ(read("0.0.0.0/0:80=8080"), "::ffff:0.0.0.0/96 80=8080");
    EXPECT_EQ(read("198.51.100.7:1=65535"), "::ffff:198.51.100.7/128 1=65535");
    for (const char* same : {"[2001:db8::]/32:80=8080", "[2001:db8::/32]:80=8080", "2001:db8::/32:80=8080"})
        EXPECT_EQ(read(same), "2001:db8::/32 80=8080") << same;
    EXPECT_EQ(read("[::]/0:443=8443"), "::/0 443=8443");
    EXPECT_EQ(read("[2001:db8::1]:80=8080"), "2001:db8::1/128 80=8080");
}

TEST(InterceptRule, WhatIsNoneIsRefused) {
    for (const char* bad : {"",
                            "80",
                            "=",
                            "80=",
                            "=80",
                            "0=80",
                            "80=0",
                            "65536=1",
                            "80=65536",
                            "x=1",
                            "80=x",
                            "80=80 ",
                            "10.0.0.0/33:80=1",
                            "10.0.0.1/8:80=1",
                            "10.0.0:80=1",
                            "[2001:db8::]/129:80=1",
                            "[2001:db8::1]/32:80=1",
                            "2001:db8::1:80=1",
                            ":80=1",
                            "10.0.0.0/8=80",
                            "10.0.0.0/:80=1"})
        EXPECT_EQ(read(bad), "usage") << bad;
}

TEST(InterceptRules, AreAList) {
    const auto rules = parse_intercepts("80=8080,10.0.0.0/8:80=8081,443=8443,80=8080");
    ASSERT_TRUE(rules) << rules.error().message;
    EXPECT_EQ(rules->size(), 3U) << "the same twice is once";
}

TEST(InterceptRules, MustNotContradictEachOtherOrMakeAChain) {
    for (const char* bad :
         {"80=8080,80=8081", "80=8080,8080=9090", "80=8080,10.0.0.0/8:8080=9090", "80=8080,", ""})
        EXPECT_FALSE(parse_intercepts(bad)) << bad;
    EXPECT_TRUE(parse_intercepts("80=80"));
    EXPECT_TRUE(parse_intercepts("80=8080,8080=8080"));
}

TEST(InterceptKey, CountsThePortBeforeTheAddress) {
    const auto key = key_of(*parse_intercept("10.0.0.0/8:80=8080"));
    EXPECT_EQ(key.prefix_len, 16U + 104U);
    EXPECT_EQ(key.port, 80);
    EXPECT_EQ(key.address[12], 10);
    EXPECT_EQ(key_of(*parse_intercept("80=8080")).prefix_len, 16U);
}

TEST(InterceptRule, ListenersAreTransparentOnesOnItsPort) {
    const auto rules = *parse_intercepts("80=8080,443=8443");
    Listener every{.port = 8080, .transparent = true};
    Listener one = every, ordinary = every, other = every, dual = every;
    one.address = {192, 0, 2, 7};
    ordinary.transparent = false;
    ordinary.address = {192, 0, 2, 8};
    other.port = 80;
    dual.ipv6 = true;
    dual.port = 8443;
    const auto at = [](const Listener& listener) { return address_of(listener); };
    Listener dual4 = dual;
    dual4.ipv6 = false;
    EXPECT_EQ(intercepting_listeners({every, one, ordinary, other, dual}, rules),
              (std::set<ListenAddress>{at(every), at(one), at(dual), at(dual4)}));
    dual.ipv6_only = true;
    EXPECT_EQ(intercepting_listeners({dual}, rules), std::set<ListenAddress>{at(dual)});
}

} // namespace
} // namespace syngate
