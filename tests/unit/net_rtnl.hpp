// SPDX-License-Identifier: GPL-2.0-or-later
// Changes links, addresses and routes of the test's own network namespace.
#pragma once

#include "net/netlink.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <string>

namespace syngate::test {

class Rtnl {
public:
    Rtnl() : netlink_(*Netlink::open(NETLINK_ROUTE)) {}

    void add_veth(const std::string& name, const std::string& peer) {
        NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        request.head<ifinfomsg>();
        request.put_string(IFLA_IFNAME, name);
        request.nest(IFLA_LINKINFO, [&] {
            return request.put_string(IFLA_INFO_KIND, "veth") && request.nest(IFLA_INFO_DATA, [&] {
                return request.nest(VETH_INFO_PEER, [&] {
                    const ifinfomsg head{};
                    // The peer's header, then its attributes: no attribute of its own around it.
                    auto& outer = request.header();
                    std::memcpy(mnl_nlmsg_put_extra_header(&outer, sizeof head), &head, sizeof head);
                    return request.put_string(IFLA_IFNAME, peer);
                });
            });
        });
        run(request);
    }

    void add_bridge(const std::string& name) {
        NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        request.head<ifinfomsg>();
        request.put_string(IFLA_IFNAME, name);
        request.nest(IFLA_LINKINFO, [&] { return request.put_string(IFLA_INFO_KIND, "bridge"); });
        run(request);
    }

    Result<> add_vrf(const std::string& name, std::uint32_t table) {
        NetlinkRequest request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        request.head<ifinfomsg>();
        request.put_string(IFLA_IFNAME, name);
        request.nest(IFLA_LINKINFO, [&] {
            return request.put_string(IFLA_INFO_KIND, "vrf") &&
                   request.nest(IFLA_INFO_DATA, [&] { return request.put_u32(IFLA_VRF_TABLE, table); });
        });
        return netlink_.run(request, "cannot make a VRF");
    }

    void set_master(const std::string& name, const std::string& master) {
        NetlinkRequest request(RTM_NEWLINK);
        request.head<ifinfomsg>().ifi_index = static_cast<int>(::if_nametoindex(name.c_str()));
        request.put_u32(IFLA_MASTER, ::if_nametoindex(master.c_str()));
        run(request);
    }

    void remove_link(const std::string& name) {
        NetlinkRequest request(RTM_DELLINK);
        request.head<ifinfomsg>().ifi_index = static_cast<int>(::if_nametoindex(name.c_str()));
        run(request);
    }

    // A policy rule for all packets of the family.
    void rule(bool add, std::uint8_t family, std::uint32_t priority, std::uint32_t table) {
        NetlinkRequest request(add ? RTM_NEWRULE : RTM_DELRULE,
                               add ? NLM_F_CREATE | NLM_F_EXCL : std::uint16_t{0});
        auto& head = request.head<fib_rule_hdr>();
        head.family = family;
        head.action = FR_ACT_TO_TBL;
        request.put_u32(FRA_PRIORITY, priority);
        request.put_u32(FRA_TABLE, table);
        run(request);
    }

    Result<> address(bool add, const std::string& name, const std::string& text, std::uint8_t bits) {
        NetlinkRequest request(add ? RTM_NEWADDR : RTM_DELADDR,
                               add ? NLM_F_CREATE | NLM_F_EXCL : std::uint16_t{0});
        auto& head = request.head<ifaddrmsg>();
        std::array<std::uint8_t, 16> bytes{};
        head.ifa_family = parse(text, bytes);
        head.ifa_prefixlen = bits;
        head.ifa_index = ::if_nametoindex(name.c_str());
        request.put(IFA_LOCAL, bytes.data(), head.ifa_family == AF_INET ? 4 : 16);
        return netlink_.run(request, "cannot change the address " + text);
    }
    void add_address(const std::string& name, const std::string& text, std::uint8_t bits) {
        const auto done = address(true, name, text, bits);
        EXPECT_TRUE(done) << done.error().message;
    }
    void remove_address(const std::string& name, const std::string& text, std::uint8_t bits) {
        const auto done = address(false, name, text, bits);
        EXPECT_TRUE(done) << done.error().message;
    }

    void route(bool add, std::uint8_t type, std::uint8_t table, const std::string& text, std::uint8_t bits,
               const std::string& device) {
        NetlinkRequest request(add ? RTM_NEWROUTE : RTM_DELROUTE,
                               add ? NLM_F_CREATE | NLM_F_EXCL : std::uint16_t{0});
        auto& head = request.head<rtmsg>();
        std::array<std::uint8_t, 16> bytes{};
        head.rtm_family = parse(text, bytes);
        head.rtm_dst_len = bits;
        head.rtm_type = type;
        head.rtm_table = table;
        head.rtm_protocol = RTPROT_STATIC;
        head.rtm_scope = type == RTN_LOCAL ? RT_SCOPE_HOST : RT_SCOPE_LINK;
        request.put(RTA_DST, bytes.data(), head.rtm_family == AF_INET ? 4 : 16);
        request.put_u32(RTA_OIF, ::if_nametoindex(device.c_str()));
        run(request);
    }

private:
    static std::uint8_t parse(const std::string& text, std::array<std::uint8_t, 16>& bytes) {
        const bool v4 = ::inet_pton(AF_INET, text.c_str(), bytes.data()) == 1;
        EXPECT_TRUE(v4 || ::inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1) << text;
        return v4 ? AF_INET : AF_INET6;
    }

    void run(NetlinkRequest& request) {
        const auto done = netlink_.run(request, "test");
        EXPECT_TRUE(done) << done.error().message;
    }

    Netlink netlink_;
};

} // namespace syngate::test
