// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/routing_read.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

namespace syngate {
namespace {

const char* name_of(int family) {
    return family == AF_INET ? "IPv4" : "IPv6";
}

// Every attribute that narrows a rule, besides the mark.
constexpr std::array selectors{FRA_DST,    FRA_SRC,       FRA_IIFNAME,  FRA_OIFNAME,     FRA_FLOW,
                               FRA_TUN_ID, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE};

Rule rule_of(const nlmsghdr& message, const fib_rule_hdr& head) {
    const auto attributes = attributes_of<FRA_MAX + 1>(message, sizeof head);
    Rule rule;
    rule.family = head.family;
    rule.priority = netlink_value<std::uint32_t>(attributes[FRA_PRIORITY]);
    rule.mark = netlink_value<std::uint32_t>(attributes[FRA_FWMARK]);
    rule.mask = netlink_value<std::uint32_t>(attributes[FRA_FWMASK]);
    rule.table = netlink_value<std::uint32_t>(attributes[FRA_TABLE], head.table);
    rule.protocol = netlink_value<std::uint8_t>(attributes[FRA_PROTOCOL]);
    rule.to_table = head.action == FR_ACT_TO_TBL;
    rule.inverted = (head.flags & FIB_RULE_INVERT) != 0;
    rule.by_mark_alone = head.src_len == 0 && head.dst_len == 0 && head.tos == 0 &&
                         std::ranges::none_of(selectors, [&](int type) {
                             return attributes[static_cast<std::size_t>(type)] != nullptr;
                         });
    return rule;
}

Result<std::vector<Route>> read_routes(Netlink& netlink, std::uint32_t table, std::uint8_t protocol) {
    std::vector<Route> all;
    for (const auto family : ip_families) {
        std::vector<Route> routes;
        NetlinkRequest request(RTM_GETROUTE);
        // With strict checking these are a filter; an older kernel ignores them.
        auto& wanted = request.head<rtmsg>();
        wanted.rtm_family = family;
        wanted.rtm_protocol = protocol;
        wanted.rtm_table = static_cast<unsigned char>(table < 256 ? table : RT_TABLE_UNSPEC);
        if (table != 0)
            request.put_u32(RTA_TABLE, table);
        const auto done = netlink.dump(
            request, "cannot list the routes", [&] { routes.clear(); },
            [&](const nlmsghdr& message) {
                const auto* head = head_of<rtmsg>(message);
                if (!head || message.nlmsg_type != RTM_NEWROUTE || (head->rtm_flags & RTM_F_CLONED) ||
                    head->rtm_family != family)
                    return;
                const auto attributes = attributes_of<RTA_MAX + 1>(message, sizeof *head);
                Route route;
                route.family = family;
                route.table = netlink_value<std::uint32_t>(attributes[RTA_TABLE], head->rtm_table);
                route.type = head->rtm_type;
                route.protocol = head->rtm_protocol;
                route.prefix_bits = head->rtm_dst_len;
                route.device = netlink_value<std::uint32_t>(attributes[RTA_OIF]);
                if ((table == 0 || route.table == table) && (protocol == 0 || route.protocol == protocol))
                    routes.push_back(route);
            });
        // A table that has never held a route does not exist (ENOENT).
        if (!done && done.error().code != ENOENT && !family_is_absent(family, done.error()))
            return std::unexpected(done.error());
        if (done)
            all.insert(all.end(), routes.begin(), routes.end());
    }
    return all;
}

} // namespace

Result<std::vector<Rule>> read_rules(Netlink& netlink) {
    std::vector<Rule> all;
    for (const auto family : ip_families) {
        std::vector<Rule> rules;
        NetlinkRequest request(RTM_GETRULE);
        request.head<fib_rule_hdr>().family = family;
        const auto done = netlink.dump(
            request, "cannot list the routing policy rules", [&] { rules.clear(); },
            [&](const nlmsghdr& message) {
                const auto* head = head_of<fib_rule_hdr>(message);
                if (head && message.nlmsg_type == RTM_NEWRULE && head->family == family)
                    rules.push_back(rule_of(message, *head));
            });
        if (!done && !family_is_absent(family, done.error()))
            return std::unexpected(done.error());
        all.insert(all.end(), rules.begin(), rules.end());
    }
    return all;
}

Result<std::vector<Route>> read_table(Netlink& netlink, std::uint32_t table) {
    return read_routes(netlink, table, 0);
}

Result<std::vector<Route>> read_routes_of_protocol(Netlink& netlink, std::uint8_t protocol) {
    return read_routes(netlink, 0, protocol);
}

bool table_local_is_first(const std::vector<Rule>& rules) {
    return std::ranges::all_of(ip_families, [&](int family) {
        const auto first = std::ranges::find(rules, family, &Rule::family);
        return first == rules.end() || (first->to_table && first->table == RT_TABLE_LOCAL &&
                                        first->by_mark_alone && first->mask == 0 && !first->inverted);
    });
}

std::string to_text(const Rule& rule) {
    std::string text = fmt::format("{} rule {}:", name_of(rule.family), rule.priority);
    if (rule.mask != 0)
        text += fmt::format("{} fwmark {:#x}/{:#x}", rule.inverted ? " not" : "", rule.mark, rule.mask);
    if (rule.to_table)
        text += fmt::format(" lookup {}", rule.table);
    return text;
}

std::string to_text(const Route& route) {
    char device[IF_NAMESIZE] = "?";
    if_indextoname(route.device, device);
    return fmt::format(
        "{} route {}{} dev {} table {}", name_of(route.family), route.type == RTN_LOCAL ? "local " : "",
        route.prefix_bits == 0 ? "default" : fmt::format("to a /{}", route.prefix_bits), device, route.table);
}

} // namespace syngate
