// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/netlink.hpp"

#include "net/address_read.hpp"
#include "unit/net_namespace.hpp"
#include "unit/net_rtnl.hpp"

#include <fmt/format.h>

namespace syngate {
namespace {

using test::in_namespace;
using test::Rtnl;

constexpr int many = 1000; // addresses: their dump takes several messages of at most 32 KiB

std::string nth(int i) {
    return fmt::format("10.1.{}.{}", i / 250, i % 250 + 1);
}

// Lists IPv4 addresses; on_first is called within each attempt, when the kernel has sent only a part.
Result<> list_addresses(int& restarts, std::set<std::uint32_t>& seen, const std::function<void()>& on_first) {
    auto netlink = Netlink::open(NETLINK_ROUTE);
    NetlinkRequest request(RTM_GETADDR);
    request.head<ifaddrmsg>().ifa_family = AF_INET;
    const auto restart = [&] {
        ++restarts;
        seen.clear();
    };
    return netlink->dump(request, "cannot list the test's addresses", restart, [&](const nlmsghdr& message) {
        if (seen.empty())
            on_first();
        const auto* payload = static_cast<const char*>(mnl_nlmsg_get_payload(&message));
        for_each_attribute(payload + sizeof(ifaddrmsg),
                           mnl_nlmsg_get_payload_len(&message) - sizeof(ifaddrmsg),
                           [&](const nlattr& attribute) {
                               if (mnl_attr_get_type(&attribute) == IFA_LOCAL)
                                   seen.insert(netlink_value<std::uint32_t>(&attribute));
                           });
    });
}

TEST(NetlinkDump, IsAskedAgainWhenItWasInterrupted) {
    in_namespace([] {
        Rtnl rtnl;
        for (int i = 0; i < many; ++i)
            rtnl.add_address("lo", nth(i), 32);
        int restarts = 0;
        std::set<std::uint32_t> seen;
        // Removing what was already sent moves the rest up in the kernel's list: a part is skipped.
        const auto once = list_addresses(restarts, seen, [&] {
            if (restarts == 1)
                rtnl.remove_address("lo", nth(0), 32);
        });
        ASSERT_TRUE(once) << once.error().message;
        EXPECT_EQ(restarts, 2);
        EXPECT_EQ(seen.size(), many - 1 + 1U); // and 127.0.0.1

        restarts = 0;
        const auto always =
            list_addresses(restarts, seen, [&] { rtnl.remove_address("lo", nth(restarts), 32); });
        ASSERT_FALSE(always);
        EXPECT_EQ(always.error().code, EINTR);
        EXPECT_EQ(restarts, Netlink::dump_attempts);
        EXPECT_NE(always.error().message.find("the test's addresses"), std::string::npos);
    });
}

TEST(NetlinkErrors, CarryTheKernelsOwnWords) {
    in_namespace([] {
        Rtnl rtnl;
        const auto bad = rtnl.address(true, "lo", "10.0.0.1", 33);
        ASSERT_FALSE(bad);
        EXPECT_EQ(bad.error().code, EINVAL);
        EXPECT_EQ(bad.error().message.find("cannot change the address 10.0.0.1: "), 0U);
        EXPECT_NE(bad.error().message.find("prefix length"), std::string::npos) << bad.error().message;
        EXPECT_NE(bad.error().message.find(std::strerror(EINVAL)), std::string::npos) << bad.error().message;
        // The socket is still of use.
        rtnl.add_address("lo", "10.0.0.1", 32);
        const auto again = rtnl.address(true, "lo", "10.0.0.1", 32);
        ASSERT_FALSE(again);
        EXPECT_EQ(again.error().code, EEXIST);
    });
}

TEST(NetlinkListener, HearsOnlyOfLocalRoutes) {
    in_namespace([] {
        auto listener = NetlinkListener::open(NETLINK_ROUTE, {RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE},
                                              local_route_filter());
        ASSERT_TRUE(listener) << listener.error().message;
        Rtnl rtnl;
        for (const char* prefix : {"10.8.0.0", "fd08::"})
            rtnl.route(true, RTN_UNICAST, RT_TABLE_MAIN, prefix, 16, "lo");
        rtnl.route(true, RTN_LOCAL, RT_TABLE_LOCAL, "10.9.0.0", 16, "lo");
        rtnl.route(true, RTN_LOCAL, RT_TABLE_LOCAL, "fd09::", 16, "lo");
        std::vector<int> types;
        const auto complete = listener->drain([&](const nlmsghdr& message) {
            types.push_back(static_cast<const rtmsg*>(mnl_nlmsg_get_payload(&message))->rtm_type);
        });
        ASSERT_TRUE(complete);
        EXPECT_TRUE(*complete);
        EXPECT_EQ(types, (std::vector<int>{RTN_LOCAL, RTN_LOCAL}));
    });
}

TEST(NetlinkListener, SaysThatMessagesWereLost) {
    in_namespace([] {
        auto listener = NetlinkListener::open(NETLINK_ROUTE, {RTNLGRP_IPV4_IFADDR});
        ASSERT_TRUE(listener);
        Rtnl rtnl;
        for (int i = 0; i < 5000; ++i) {
            rtnl.add_address("lo", "10.0.0.1", 32);
            rtnl.remove_address("lo", "10.0.0.1", 32);
        }
        const auto first = listener->drain([](const nlmsghdr&) {});
        ASSERT_TRUE(first) << first.error().message;
        EXPECT_FALSE(*first);
        const auto second = listener->drain([](const nlmsghdr&) {});
        ASSERT_TRUE(second);
        EXPECT_TRUE(*second);
    });
}

} // namespace
} // namespace syngate
