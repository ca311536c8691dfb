// SPDX-License-Identifier: GPL-2.0-or-later
#include "route/policy_routing.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

namespace syngate {
namespace {

constexpr std::uint32_t main_rule_priority = 32766; // fib_default_rules_init() in the kernel's fib_rules.c

Rule rule_of(const RouteOptions& options, int family) {
    return {.family = family,
            .priority = options.priority,
            .mark = options.mark,
            .mask = options.mask,
            .table = options.table,
            .protocol = route_protocol,
            .to_table = true,
            .inverted = false,
            .by_mark_alone = true};
}

Route route_of(const RouteOptions& options, int family) {
    return {.family = family,
            .table = options.table,
            .type = RTN_LOCAL,
            .protocol = route_protocol,
            .prefix_bits = 0,
            .device = if_nametoindex("lo")};
}

Result<void> change(Netlink& netlink, const Rule& rule, bool add) {
    NetlinkRequest request(add ? RTM_NEWRULE : RTM_DELRULE,
                           add ? NLM_F_CREATE | NLM_F_EXCL : std::uint16_t{0});
    auto& head = request.head<fib_rule_hdr>();
    head.family = static_cast<std::uint8_t>(rule.family);
    head.action = FR_ACT_TO_TBL;
    request.put_u32(FRA_PRIORITY, rule.priority);
    request.put_u32(FRA_FWMARK, rule.mark);
    request.put_u32(FRA_FWMASK, rule.mask);
    request.put_u32(FRA_TABLE, rule.table);
    request.put(FRA_PROTOCOL, &rule.protocol, sizeof rule.protocol);
    return netlink.run(request, fmt::format("cannot {} the {}", add ? "add" : "remove", to_text(rule)));
}

Result<void> change(Netlink& netlink, const Route& route, bool add) {
    NetlinkRequest request(add ? RTM_NEWROUTE : RTM_DELROUTE,
                           add ? NLM_F_CREATE | NLM_F_EXCL : std::uint16_t{0});
    auto& head = request.head<rtmsg>();
    head.rtm_family = static_cast<std::uint8_t>(route.family);
    head.rtm_type = route.type;
    head.rtm_protocol = route.protocol;
    head.rtm_scope = RT_SCOPE_HOST;
    head.rtm_table = static_cast<unsigned char>(route.table < 256 ? route.table : RT_TABLE_UNSPEC);
    request.put_u32(RTA_TABLE, route.table);
    request.put_u32(RTA_OIF, route.device);
    return netlink.run(request, fmt::format("cannot {} the {}", add ? "add" : "remove", to_text(route)));
}

bool is_gone(const Error& error) {
    return error.code == ENOENT || error.code == ESRCH || error.code == ENODEV;
}

// IPv6 is absent from the kernel, or switched off for lo.
bool has_no_ipv6(const Error& error) {
    return error.code == EAFNOSUPPORT || error.code == EOPNOTSUPP || error.code == EACCES ||
           error.code == ENODEV;
}

bool matches(std::uint32_t mark, const Rule& rule) {
    return rule.mask != 0 && !rule.inverted && ((mark ^ rule.mark) & rule.mask) == 0;
}

std::unexpected<Error> collision(const std::string& what, const std::string& help) {
    return failure(Exit::busy, fmt::format("cannot route marked packets to this host: {}; {}", what, help),
                   EEXIST);
}

template <class T> bool contains(const std::vector<T>& all, const T& one) {
    return std::ranges::find(all, one) != all.end();
}

template <class T> Result<void> remove(Netlink& netlink, const T& thing) {
    const auto r = change(netlink, thing, false);
    return r || is_gone(r.error()) ? Result<void>{} : r;
}

} // namespace

Result<void> check_options(const RouteOptions& options) {
    if (options.mark == 0 || (options.mark & ~options.mask) != 0)
        return failure(Exit::usage, fmt::format("--mark {:#x}/{:#x}: the mark must not be 0 nor have bits "
                                                "outside of its mask",
                                                options.mark, options.mask));
    if (options.table == RT_TABLE_UNSPEC ||
        (options.table >= RT_TABLE_DEFAULT && options.table <= RT_TABLE_LOCAL))
        return failure(Exit::usage,
                       fmt::format("--table {}: this is one of the kernel's own tables; take another, as "
                                   "1 to 252, or 256 and up",
                                   options.table));
    if (options.priority == 0 || options.priority >= main_rule_priority)
        return failure(Exit::usage,
                       fmt::format("--rule-priority {}: it must be 1 to {}, before the table main",
                                   options.priority, main_rule_priority - 1));
    return {};
}

Result<void> check_collisions(const RouteOptions& options, const std::vector<Rule>& rules,
                              const std::vector<Route>& routes_in_table) {
    for (const Route& route : routes_in_table)
        if (route.table == options.table)
            return collision(fmt::format("the table {} holds a route of somebody else ({}, protocol {})",
                                         options.table, to_text(route), route.protocol),
                             "name an empty table with --table");
    const Rule ours = rule_of(options, AF_UNSPEC);
    for (const Rule& rule : rules) {
        if (rule.priority == options.priority)
            return collision(fmt::format("there is a rule with the same priority ({}, protocol {})",
                                         to_text(rule), rule.protocol),
                             "name a free priority with --rule-priority");
        if (matches(options.mark, rule) || (rule.mask != 0 && matches(rule.mark, ours)))
            return collision(fmt::format("the mark {:#x}/{:#x} is used by somebody else ({}, protocol {})",
                                         options.mark, options.mask, to_text(rule), rule.protocol),
                             "name a free bit with --mark");
        if (rule.to_table && rule.table == options.table)
            return collision(fmt::format("the table {} is used by a rule of somebody else ({}, protocol {})",
                                         options.table, to_text(rule), rule.protocol),
                             "name an unused table with --table");
    }
    return {};
}

OwnRouting take_fitting(OwnRouting& own, const RouteOptions& options) {
    OwnRouting taken;
    for (const int family : {AF_INET, AF_INET6}) {
        if (std::erase(own.rules, rule_of(options, family)) > 0)
            taken.rules.push_back(rule_of(options, family));
        if (std::erase(own.routes, route_of(options, family)) > 0)
            taken.routes.push_back(route_of(options, family));
    }
    return taken;
}

Result<std::unique_ptr<PolicyRouting>> PolicyRouting::set_up(const RouteOptions& options,
                                                             const OwnRouting& taken_over) {
    if (const auto r = check_options(options); !r)
        return std::unexpected(r.error());
    auto netlink = Netlink::open(NETLINK_ROUTE);
    if (!netlink)
        return std::unexpected(netlink.error());
    auto rules = read_rules(*netlink);
    if (!rules)
        return std::unexpected(rules.error());
    auto routes = read_table(*netlink, options.table);
    if (!routes)
        return std::unexpected(routes.error());
    std::erase_if(*rules, [&](const Rule& rule) { return contains(taken_over.rules, rule); });
    std::erase_if(*routes, [&](const Route& route) { return contains(taken_over.routes, route); });
    if (const auto r = check_collisions(options, *rules, *routes); !r)
        return std::unexpected(r.error());

    std::unique_ptr<PolicyRouting> routing(new PolicyRouting(std::move(*netlink), options));
    if (const auto r = routing->add(AF_INET, taken_over); !r)
        return std::unexpected(r.error());
    if (const auto r = routing->add(AF_INET6, taken_over); !r) {
        if (!has_no_ipv6(r.error()))
            return std::unexpected(r.error());
        routing->no_ipv6_because_ = r.error().message;
    }
    return routing;
}

// The route first: a packet that met the rule without it would be sent on.
Result<void> PolicyRouting::add(int family, const OwnRouting& taken_over) {
    const Route route = route_of(options_, family);
    const Rule rule = rule_of(options_, family);
    if (auto r = contains(taken_over.routes, route) ? Result<void>{} : change(netlink_, route, true); !r) {
        if (r.error().code == ENETDOWN)
            r.error().message += "; `ip link set lo up` first";
        return r;
    }
    routes_.push_back(route);
    if (const auto r = contains(taken_over.rules, rule) ? Result<void>{} : change(netlink_, rule, true); !r) {
        (void)remove(netlink_, route);
        routes_.pop_back();
        return r;
    }
    rules_.push_back(rule);
    return {};
}

void PolicyRouting::leave() {
    rules_.clear();
    routes_.clear();
}

PolicyRouting::~PolicyRouting() {
    for (const Rule& rule : rules_)
        if (const auto r = remove(netlink_, rule); !r)
            spdlog::error("{}", r.error().message);
    for (const Route& route : routes_)
        if (const auto r = remove(netlink_, route); !r)
            spdlog::error("{}", r.error().message);
}

Result<OwnRouting> find_own_routing() {
    auto netlink = Netlink::open(NETLINK_ROUTE);
    if (!netlink)
        return std::unexpected(netlink.error());
    auto rules = read_rules(*netlink);
    if (!rules)
        return std::unexpected(rules.error());
    auto routes = read_routes_of_protocol(*netlink, route_protocol);
    if (!routes)
        return std::unexpected(routes.error());
    std::erase_if(*rules, [](const Rule& rule) {
        return rule.protocol != route_protocol || !rule.to_table || !rule.by_mark_alone || rule.inverted ||
               rule.mark == 0;
    });
    std::erase_if(*routes,
                  [](const Route& route) { return route.type != RTN_LOCAL || route.prefix_bits != 0; });
    return OwnRouting{.rules = std::move(*rules), .routes = std::move(*routes)};
}

Result<std::vector<std::string>> remove_own_routing(const OwnRouting& own) {
    auto netlink = Netlink::open(NETLINK_ROUTE);
    if (!netlink)
        return std::unexpected(netlink.error());
    std::vector<std::string> removed;
    for (const Rule& rule : own.rules) {
        if (const auto r = remove(*netlink, rule); !r)
            return std::unexpected(r.error());
        removed.push_back("the " + to_text(rule));
    }
    for (const Route& route : own.routes) {
        if (const auto r = remove(*netlink, route); !r)
            return std::unexpected(r.error());
        removed.push_back("the " + to_text(route));
    }
    return removed;
}

} // namespace syngate
