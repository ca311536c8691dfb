// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/address_watch.hpp"

#include "net/address_read.hpp"
#include "net/routing_read.hpp"

#include <algorithm>
#include <linux/rtnetlink.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

// What has to be read again. Each kind of change implies those below it: an interface takes its addresses
// along, and the kernel does not announce each route that goes with it.
enum class Stale { nothing, rules, routes, addresses, links };

// After a reading that failed, most likely because things changed all the time.
constexpr Duration retry_after = std::chrono::milliseconds(20);

} // namespace

struct AddressWatch::Impl {
    Loop& loop;
    std::function<void(const Addresses&)> changed;
    Netlink netlink;
    NetlinkListener devices; // links and addresses
    NetlinkListener routes;  // and rules
    Source on_devices, on_routes, retry;

    Links known_links;
    HeldAddresses known_addresses;
    std::set<LocalPrefix> known_routes, known_in_vrf;
    Addresses current;
    Stale stale = Stale::links;

    Impl(Loop& l, std::function<void(const Addresses&)> on_change, Netlink dumps, NetlinkListener of_devices,
         NetlinkListener of_routes)
        : loop(l), changed(std::move(on_change)), netlink(std::move(dumps)), devices(std::move(of_devices)),
          routes(std::move(of_routes)) {}

    void mark(Stale what) { stale = std::max(stale, what); }

    // Returns whether the picture differs from the one before.
    Result<bool> read() {
        if (stale >= Stale::links) {
            auto links = read_links(netlink);
            if (!links)
                return std::unexpected(links.error());
            known_links = std::move(*links);
        }
        if (stale >= Stale::addresses) {
            auto addresses = read_addresses(netlink);
            if (!addresses)
                return std::unexpected(addresses.error());
            known_addresses = std::move(*addresses);
        }
        if (stale >= Stale::routes) {
            auto local = read_local_routes(netlink, {RT_TABLE_LOCAL, RT_TABLE_MAIN});
            if (!local)
                return std::unexpected(local.error());
            known_routes = std::move(*local);
            auto in_vrf = read_local_routes(netlink, vrf_tables(known_links));
            if (!in_vrf)
                return std::unexpected(in_vrf.error());
            known_in_vrf = std::move(*in_vrf);
        }
        const auto rules = read_rules(netlink);
        if (!rules)
            return std::unexpected(rules.error());
        stale = Stale::nothing;
        Addresses fresh = combine(known_links, known_addresses, known_routes, known_in_vrf);
        fresh.local_first = table_local_is_first(*rules);
        if (fresh == current)
            return false;
        current = std::move(fresh);
        return true;
    }

    void drain(NetlinkListener& listener, Stale if_lost) {
        const auto complete = listener.drain([&](const nlmsghdr& message) {
            if (message.nlmsg_type == RTM_NEWLINK || message.nlmsg_type == RTM_DELLINK)
                mark(Stale::links);
            else if (message.nlmsg_type == RTM_NEWADDR || message.nlmsg_type == RTM_DELADDR)
                mark(Stale::addresses);
            else if (message.nlmsg_type == RTM_NEWROUTE || message.nlmsg_type == RTM_DELROUTE)
                mark(Stale::routes);
            else if (message.nlmsg_type == RTM_NEWRULE || message.nlmsg_type == RTM_DELRULE)
                mark(Stale::rules);
        });
        if (!complete)
            spdlog::warn("{}", complete.error().message);
        if (!complete || !*complete)
            mark(if_lost);
    }

    // One change is often announced on both sockets: both are emptied before one reading. The last thing
    // that it does is to call changed, which may destroy the watch.
    void update() {
        drain(devices, Stale::links);
        drain(routes, Stale::routes);
        if (stale == Stale::nothing)
            return;
        const auto differs = read();
        if (!differs) {
            spdlog::warn("{}; the addresses are read again in {}", differs.error().message,
                         format_duration(retry_after));
            if (auto timer = loop.after(retry_after, [this] { update(); }))
                retry = std::move(*timer);
            return;
        }
        if (*differs && changed) {
            const auto call = changed;
            call(current);
        }
    }
};

AddressWatch::AddressWatch() = default;
AddressWatch::~AddressWatch() = default;

const Addresses& AddressWatch::now() const {
    return impl_->current;
}

Result<std::unique_ptr<AddressWatch>> AddressWatch::start(Loop& loop,
                                                          std::function<void(const Addresses&)> changed) {
    // Listen first, then read: nothing can happen unnoticed in between.
    auto devices =
        NetlinkListener::open(NETLINK_ROUTE, {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR});
    if (!devices)
        return std::unexpected(devices.error());
    auto routes = NetlinkListener::open(
        NETLINK_ROUTE, {RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE},
        local_route_filter());
    if (!routes)
        return std::unexpected(routes.error());
    auto netlink = Netlink::open(NETLINK_ROUTE);
    if (!netlink)
        return std::unexpected(netlink.error());

    std::unique_ptr<AddressWatch> watch(new AddressWatch);
    watch->impl_ = std::make_unique<Impl>(loop, std::move(changed), std::move(*netlink), std::move(*devices),
                                          std::move(*routes));
    Impl& impl = *watch->impl_;
    if (const auto read = impl.read(); !read)
        return std::unexpected(read.error());
    auto on_devices = loop.on_io(impl.devices.fd(), EPOLLIN, [&impl](std::uint32_t) { impl.update(); });
    if (!on_devices)
        return std::unexpected(on_devices.error());
    auto on_routes = loop.on_io(impl.routes.fd(), EPOLLIN, [&impl](std::uint32_t) { impl.update(); });
    if (!on_routes)
        return std::unexpected(on_routes.error());
    impl.on_devices = std::move(*on_devices);
    impl.on_routes = std::move(*on_routes);
    return watch;
}

} // namespace syngate
