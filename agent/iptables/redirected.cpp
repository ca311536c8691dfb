// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/redirected.hpp"

#include "net/netlink.hpp"
#include "net/sock_diag.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

const nlattr* inside(const nlattr* outer, int type) {
    const nlattr* found = nullptr;
    if (outer)
        for_each_attribute(mnl_attr_get_payload(outer), mnl_attr_get_payload_len(outer),
                           [&](const nlattr& each) {
                               if (mnl_attr_get_type(&each) == type)
                                   found = &each;
                           });
    return found;
}

std::uint16_t port_in(const nlattr* tuple, int type) {
    return ntohs(netlink_value<std::uint16_t>(inside(inside(tuple, CTA_TUPLE_PROTO), type)));
}

// Who sends on still, either of them.
bool goes_on(std::uint8_t state) {
    return state >= TCP_CONNTRACK_SYN_RECV && state <= TCP_CONNTRACK_LAST_ACK;
}

Result<std::size_t> count_by_conntrack(const std::vector<rules::Redirected>& redirects) {
    auto netlink = Netlink::open(NETLINK_NETFILTER);
    if (!netlink)
        return std::unexpected(netlink.error());
    std::size_t count = 0;
    for (const bool ipv6 : {false, true}) {
        if (std::ranges::none_of(redirects, [&](const auto& each) { return each.ipv6 == ipv6; }))
            continue;
        NetlinkRequest request((NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET);
        auto& head = request.head<nfgenmsg>();
        head.nfgen_family = ipv6 ? AF_INET6 : AF_INET;
        std::size_t of_family = 0;
        const auto r = netlink->dump(
            request, "cannot list the connections of conntrack", [&] { of_family = 0; },
            [&](const nlmsghdr& message) {
                const auto all = attributes_of<CTA_MAX + 1>(message, sizeof(nfgenmsg));
                const nlattr* proto = inside(all[CTA_TUPLE_ORIG], CTA_TUPLE_PROTO);
                if (netlink_value<std::uint8_t>(inside(proto, CTA_PROTO_NUM)) != IPPROTO_TCP ||
                    !goes_on(netlink_value<std::uint8_t>(
                        inside(inside(all[CTA_PROTOINFO], CTA_PROTOINFO_TCP), CTA_PROTOINFO_TCP_STATE))))
                    return;
                const auto from = port_in(all[CTA_TUPLE_ORIG], CTA_PROTO_DST_PORT);
                const auto to = port_in(all[CTA_TUPLE_REPLY], CTA_PROTO_SRC_PORT);
                of_family += std::ranges::any_of(redirects, [&](const rules::Redirected& each) {
                    return each.ipv6 == ipv6 && each.port == from && each.to == to;
                });
            });
        if (!r)
            return std::unexpected(r.error());
        count += of_family;
    }
    return count;
}

} // namespace

std::size_t count_redirected(const std::vector<rules::Redirected>& redirects) {
    if (redirects.empty())
        return 0;
    const auto by_conntrack = count_by_conntrack(redirects);
    if (by_conntrack)
        return *by_conntrack;
    spdlog::debug("{}; sockets are counted instead", by_conntrack.error().message);
    PortSet targets;
    for (const auto& each : redirects)
        targets.insert(each.to);
    const auto sockets = open_sock_diag();
    const auto connected =
        sockets ? (*sockets)->connected(targets, nullptr) : std::unexpected(sockets.error());
    return connected.value_or(0);
}

} // namespace syngate
