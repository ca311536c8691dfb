// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/conntrack.hpp"

#include "net/address_read.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <optional>
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

// Empty: not TCP.
std::optional<Tracked> tracked_in(const nlmsghdr& message) {
    const auto all = attributes_of<CTA_MAX + 1>(message, sizeof(nfgenmsg));
    const nlattr* proto = inside(all[CTA_TUPLE_ORIG], CTA_TUPLE_PROTO);
    const auto* head = head_of<nfgenmsg>(message);
    if (!head || netlink_value<std::uint8_t>(inside(proto, CTA_PROTO_NUM)) != IPPROTO_TCP)
        return {};
    return Tracked{.ipv6 = head->nfgen_family == AF_INET6,
                   .from = port_in(all[CTA_TUPLE_ORIG], CTA_PROTO_DST_PORT),
                   .to = port_in(all[CTA_TUPLE_REPLY], CTA_PROTO_SRC_PORT),
                   .state = netlink_value<std::uint8_t>(
                       inside(inside(all[CTA_PROTOINFO], CTA_PROTOINFO_TCP), CTA_PROTOINFO_TCP_STATE)),
                   .original = all[CTA_TUPLE_ORIG],
                   .answering = all[CTA_TUPLE_REPLY],
                   .zone = all[CTA_ZONE],
                   .id = all[CTA_ID]};
}

constexpr std::uint16_t type_of(int message) {
    return static_cast<std::uint16_t>((NFNL_SUBSYS_CTNETLINK << 8) | message);
}

void put_family(NetlinkRequest& request, bool ipv6) {
    request.head<nfgenmsg>().nfgen_family = ipv6 ? AF_INET6 : AF_INET;
}

bool put_copy(NetlinkRequest& request, const nlattr* attribute) {
    return !attribute || request.put(attribute->nla_type, mnl_attr_get_payload(attribute),
                                     mnl_attr_get_payload_len(attribute));
}

// The very connection, not another one of the same addresses and ports. Without a tuple the kernel would take
// a request to forget for one about all.
bool name_connection(NetlinkRequest& request, const Tracked& connection) {
    put_family(request, connection.ipv6);
    return connection.original && put_copy(request, connection.original) &&
           put_copy(request, connection.zone) && put_copy(request, connection.id);
}

// In LocalPrefix' form.
std::optional<std::array<std::uint8_t, 16>> source_of(const nlattr* tuple, bool ipv6) {
    std::array<std::uint8_t, 16> address{};
    const nlattr* source = inside(inside(tuple, CTA_TUPLE_IP), ipv6 ? CTA_IP_V6_SRC : CTA_IP_V4_SRC);
    const std::size_t size = ipv6 ? 16 : 4;
    if (!source || mnl_attr_get_payload_len(source) < size)
        return {};
    if (!ipv6)
        address[10] = address[11] = 0xff;
    std::memcpy(address.data() + address.size() - size, mnl_attr_get_payload(source), size);
    return address;
}

bool is_in(const std::array<std::uint8_t, 16>& address, const LocalPrefix& prefix) {
    for (std::uint32_t bit = 0; bit < prefix.bits; bit += 8) {
        const std::uint32_t wanted = std::min(8U, prefix.bits - bit);
        const auto mask = static_cast<std::uint8_t>(0xff00U >> wanted);
        if (((address[bit / 8] ^ prefix.address[bit / 8]) & mask) != 0)
            return false;
    }
    return true;
}

} // namespace

Result<void> list_connections(Netlink& netlink, bool ipv6, bool only_unanswered,
                              const std::function<void()>& restart, const OnTracked& on_connection) {
    NetlinkRequest request(type_of(IPCTNL_MSG_CT_GET));
    put_family(request, ipv6);
    if (only_unanswered) {
        request.put_u32(CTA_STATUS, 0);
        request.put_u32(CTA_STATUS_MASK, htonl(IPS_SEEN_REPLY));
    }
    return netlink.dump(request, "cannot list the connections of conntrack", restart,
                        [&](const nlmsghdr& message) {
                            if (const auto tracked = tracked_in(message); tracked && tracked->ipv6 == ipv6)
                                on_connection(*tracked);
                        });
}

Result<void> look_at_connection(Netlink& netlink, const Tracked& connection, const OnTracked& on_connection) {
    constexpr auto what = "cannot look at a connection of conntrack";
    NetlinkRequest request(type_of(IPCTNL_MSG_CT_GET));
    if (!name_connection(request, connection))
        return failure(Exit::failed, fmt::format("{}: it has no name", what), EINVAL);
    return netlink.run(request, what, [&](const nlmsghdr& message) {
        if (const auto tracked = tracked_in(message))
            on_connection(*tracked);
    });
}

Result<void> forget_connection(Netlink& netlink, const Tracked& connection) {
    constexpr auto what = "cannot make conntrack forget a connection";
    NetlinkRequest request(type_of(IPCTNL_MSG_CT_DELETE));
    if (!name_connection(request, connection))
        return failure(Exit::failed, fmt::format("{}: it has no name", what), EINVAL);
    return netlink.run(request, what);
}

AnswersHere::AnswersHere() {
    auto netlink = Netlink::open(NETLINK_ROUTE);
    auto routes = netlink ? read_local_routes(*netlink, {RT_TABLE_LOCAL, RT_TABLE_MAIN})
                          : std::unexpected(netlink.error());
    if (!routes)
        spdlog::debug("{}; every address is taken for one of this host", routes.error().message);
    local_ = routes ? std::move(*routes) : std::set{LocalPrefix{}};
}

bool AnswersHere::operator()(const Tracked& connection) const {
    const auto address = source_of(connection.answering, connection.ipv6);
    return address && std::ranges::any_of(local_, [&](const auto& each) { return is_in(*address, each); });
}

} // namespace syngate
