// SPDX-License-Identifier: GPL-2.0-or-later
#include "route/policy_routing.hpp"

#include "unit/net_namespace.hpp"
#include "unit/net_rtnl.hpp"

#include <algorithm>
#include <fstream>
#include <linux/fib_rules.h>

namespace syngate {
namespace {

using test::in_namespace;
using test::Rtnl;

constexpr RouteOptions plan{.mark = 0x10, .mask = 0x10, .table = 1000, .priority = 500};

Rule rule(std::uint32_t priority, std::uint32_t mark, std::uint32_t mask, std::uint32_t table) {
    return {.family = AF_INET,
            .priority = priority,
            .mark = mark,
            .mask = mask,
            .table = table,
            .protocol = RTPROT_STATIC,
            .to_table = true,
            .inverted = false,
            .by_mark_alone = true};
}

// The message, or "" where there is no collision.
std::string collision(const std::vector<Rule>& rules, const std::vector<Route>& routes = {}) {
    const auto r = check_collisions(plan, rules, routes);
    if (r)
        return "";
    EXPECT_EQ(r.error().exit, Exit::busy) << r.error().message;
    return r.error().message;
}

Netlink netlink() {
    return *Netlink::open(NETLINK_ROUTE);
}

struct Picture {
    std::vector<Rule> rules;
    std::vector<Route> routes; // of every table
    bool operator==(const Picture&) const = default;
};

Picture picture() {
    Netlink link = netlink();
    return {.rules = *read_rules(link), .routes = *read_table(link, 0)};
}

void add_rule(std::uint8_t family, std::uint32_t priority, std::uint32_t mark, std::uint8_t protocol) {
    NetlinkRequest request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
    auto& head = request.head<fib_rule_hdr>();
    head.family = family;
    head.action = FR_ACT_TO_TBL;
    request.put_u32(FRA_PRIORITY, priority);
    request.put_u32(FRA_FWMARK, mark);
    request.put_u32(FRA_TABLE, 999);
    request.put(FRA_PROTOCOL, &protocol, 1);
    const auto r = netlink().run(request, "test");
    ASSERT_TRUE(r) << r.error().message;
}

TEST(RouteOptions, TheKernelsOwnTablesAndAMarkOfNothingAreRefused) {
    EXPECT_TRUE(check_options(plan));
    EXPECT_TRUE(check_options(RouteOptions{}));
    for (const std::uint32_t table : {0U, 253U, 254U, 255U})
        EXPECT_EQ(check_options({.mark = 1, .mask = 1, .table = table, .priority = 1}).error().exit,
                  Exit::usage);
    for (const std::uint32_t priority : {0U, 32766U, 40000U})
        EXPECT_EQ(check_options({.mark = 1, .mask = 1, .table = 1, .priority = priority}).error().exit,
                  Exit::usage);
    EXPECT_FALSE(check_options({.mark = 0, .mask = 1, .table = 1, .priority = 1}));
    EXPECT_FALSE(check_options({.mark = 3, .mask = 1, .table = 1, .priority = 1}));
    EXPECT_TRUE(check_options({.mark = 1, .mask = 3, .table = 1, .priority = 32765}));
}

TEST(RouteCollisions, OthersAreLeftAlone) {
    EXPECT_EQ(collision({}), "");
    EXPECT_EQ(collision({rule(0, 0, 0, RT_TABLE_LOCAL), rule(32766, 0, 0, RT_TABLE_MAIN)}), "");
    EXPECT_EQ(collision({rule(100, 0x20, 0x20, 7), rule(101, 0x4000, 0xf000, 8)}), "") << "other bits";
    EXPECT_EQ(collision({rule(100, 0x0, 0x10, 7)}), "") << "where our bit is not set";
    EXPECT_EQ(collision({}, {{.family = AF_INET, .table = 1001, .protocol = RTPROT_STATIC}}), "");
}

TEST(RouteCollisions, AreNamed) {
    EXPECT_NE(collision({rule(500, 0x20, 0x20, 7)}).find("--rule-priority"), std::string::npos);
    EXPECT_NE(collision({rule(100, 0x10, 0x10, 7)}).find("--mark"), std::string::npos);
    EXPECT_NE(collision({rule(100, 0x10, 0xffffffff, 7)}).find("--mark"), std::string::npos) << "takes ours";
    EXPECT_NE(collision({rule(100, 0x30, 0xffffffff, 7)}).find("--mark"), std::string::npos)
        << "ours takes it";
    EXPECT_NE(collision({rule(100, 0x20, 0x20, 1000)}).find("--table"), std::string::npos);
    const auto text = collision({}, {{.family = AF_INET6, .table = 1000, .protocol = RTPROT_STATIC}});
    EXPECT_NE(text.find("--table"), std::string::npos) << text;
    EXPECT_NE(text.find("IPv6"), std::string::npos) << text;
}

TEST(RouteCollisions, ARuleForAllButAMarkIsNone) {
    Rule all_but = rule(100, 0x20, 0xffffffff, 7); // wg-quick's
    all_but.inverted = true;
    EXPECT_EQ(collision({all_but}), "");
}

TEST(PolicyRouting, IsThereForItsTimeAndNoLonger) {
    in_namespace([] {
        const Picture before = picture();
        {
            const auto routing = PolicyRouting::set_up(plan);
            ASSERT_TRUE(routing) << routing.error().message;
            EXPECT_EQ((*routing)->no_ipv6_because(), "");
            const auto own = find_own_routing();
            ASSERT_TRUE(own) << own.error().message;
            ASSERT_EQ(own->rules.size(), 2U);
            ASSERT_EQ(own->routes.size(), 2U);
            for (std::size_t i = 0; i < 2; ++i) {
                const int family = i == 0 ? AF_INET : AF_INET6;
                Rule expected = rule(500, 0x10, 0x10, 1000);
                expected.family = family;
                expected.protocol = route_protocol;
                EXPECT_EQ(own->rules[i], expected) << to_text(own->rules[i]);
                EXPECT_EQ(own->routes[i], (Route{.family = family,
                                                 .table = 1000,
                                                 .type = RTN_LOCAL,
                                                 .protocol = route_protocol,
                                                 .prefix_bits = 0,
                                                 .device = ::if_nametoindex("lo")}))
                    << to_text(own->routes[i]);
            }
            EXPECT_EQ(picture().rules.size(), before.rules.size() + 2);
        }
        EXPECT_EQ(picture(), before);
    });
}

TEST(PolicyRouting, ATableOfAByteWillDo) {
    in_namespace([] {
        const Picture before = picture();
        {
            const auto routing = PolicyRouting::set_up({.mark = 1, .mask = 1, .table = 100, .priority = 9});
            ASSERT_TRUE(routing) << routing.error().message;
            EXPECT_EQ(find_own_routing()->routes.size(), 2U);
        }
        EXPECT_EQ(picture(), before);
    });
}

TEST(PolicyRouting, WhatADeadOneLeftIsRemovedAndNothingElse) {
    in_namespace([] {
        Rtnl rtnl;
        rtnl.route(true, RTN_LOCAL, 77, "0.0.0.0", 0, "lo"); // somebody else's, of the same form
        rtnl.route(true, RTN_UNICAST, 78, "10.0.0.0", 8, "lo");
        add_rule(AF_INET, 400, 0x60, RTPROT_STATIC);
        add_rule(AF_INET6, 400, 0x60, RTPROT_STATIC);
        const Picture before = picture();
        // Released: nobody takes it away, as after SIGKILL.
        const auto* left = PolicyRouting::set_up(plan)->release();
        const auto* older =
            PolicyRouting::set_up({.mark = 1, .mask = 1, .table = 4000, .priority = 77})->release();
        ASSERT_TRUE(left && older);
        const auto own = find_own_routing();
        ASSERT_EQ(own->rules.size() + own->routes.size(), 8U) << "of whatever mark, table and priority";
        const auto removed = remove_own_routing(*own);
        ASSERT_TRUE(removed) << removed.error().message;
        EXPECT_EQ(removed->size(), 8U);
        EXPECT_EQ(picture(), before);
        EXPECT_TRUE(find_own_routing()->empty());
    });
}

// From an agent that stops: packets of its connections meet the rules and routes all the time.
TEST(PolicyRouting, IsTakenOverAsItIs) {
    in_namespace([] {
        const Picture before = picture();
        {
            auto old = PolicyRouting::set_up(plan);
            ASSERT_TRUE(old) << old.error().message;
            const Picture with_one = picture();
            EXPECT_FALSE(PolicyRouting::set_up(plan)) << "not taken over";
            auto left = find_own_routing();
            const auto fitting = take_fitting(*left, plan);
            EXPECT_TRUE(left->empty());
            const auto next = PolicyRouting::set_up(plan, fitting);
            ASSERT_TRUE(next) << next.error().message;
            EXPECT_EQ(picture(), with_one);
            (*old)->leave();
            old->reset();
            EXPECT_EQ(picture(), with_one);
            RouteOptions others = plan;
            others.mark = others.mask = 0x20;
            left = find_own_routing();
            EXPECT_TRUE(take_fitting(*left, others).rules.empty());
        }
        EXPECT_EQ(picture(), before);
    });
}

TEST(PolicyRouting, OnACollisionNothingChanges) {
    in_namespace([] {
        add_rule(AF_INET6, 500, 0x77, RTPROT_STATIC); // of the second family: the first must be untouched too
        const Picture before = picture();
        const auto routing = PolicyRouting::set_up(plan);
        ASSERT_FALSE(routing);
        EXPECT_EQ(routing.error().exit, Exit::busy) << routing.error().message;
        EXPECT_EQ(picture(), before);
    });
}

TEST(PolicyRouting, WithoutIpv6ItIsForIpv4Alone) {
    in_namespace([] {
        std::ofstream("/proc/sys/net/ipv6/conf/lo/disable_ipv6") << "1";
        const Picture before = picture();
        {
            const auto routing = PolicyRouting::set_up(plan);
            ASSERT_TRUE(routing) << routing.error().message;
            EXPECT_NE((*routing)->no_ipv6_because(), "");
            const auto own = find_own_routing();
            EXPECT_EQ(own->rules.size(), 1U);
            EXPECT_EQ(own->routes.size(), 1U);
        }
        EXPECT_EQ(picture(), before);
    });
}

TEST(PolicyRouting, LoThatIsDownIsNamed) {
    in_namespace([] {
        test::set_up("lo", false);
        const auto routing = PolicyRouting::set_up(plan);
        ASSERT_FALSE(routing);
        EXPECT_NE(routing.error().message.find("ip link set lo up"), std::string::npos)
            << routing.error().message;
    });
}

} // namespace
} // namespace syngate
