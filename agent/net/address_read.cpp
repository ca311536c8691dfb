// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/address_read.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstddef>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <optional>
#include <string_view>

namespace syngate {
namespace {

std::string_view text_of(const nlattr* attribute) {
    const std::string_view text(static_cast<const char*>(mnl_attr_get_payload(attribute)),
                                mnl_attr_get_payload_len(attribute));
    return text.substr(0, text.find('\0'));
}

std::optional<LocalPrefix> prefix_of(int family, const nlattr* attribute, unsigned bits) {
    const std::size_t length = family == AF_INET ? 4 : 16;
    LocalPrefix prefix;
    if (family == AF_INET) {
        prefix.address[10] = prefix.address[11] = 0xff;
        prefix.bits = 96;
    }
    if (bits > 8 * length)
        return std::nullopt;
    prefix.bits += bits;
    if (!attribute) // of 0.0.0.0/0 and ::/0 only
        return bits == 0 ? std::optional(prefix) : std::nullopt;
    if (mnl_attr_get_payload_len(attribute) < length)
        return std::nullopt;
    std::memcpy(prefix.address.data() + (16 - length), mnl_attr_get_payload(attribute), length);
    return prefix;
}

// Calls visit(type, attribute) for each in IFLA_LINKINFO.
template <class Visit> void for_each_linkinfo(const nlattr* linkinfo, Visit visit) {
    if (linkinfo)
        for_each_attribute(mnl_attr_get_payload(linkinfo), mnl_attr_get_payload_len(linkinfo),
                           [&](const nlattr& inner) { visit(mnl_attr_get_type(&inner), inner); });
}

std::uint32_t vrf_table_of(const nlattr* linkinfo) {
    bool is_vrf = false;
    std::uint32_t table = 0;
    for_each_linkinfo(linkinfo, [&](int type, const nlattr& inner) {
        if (type == IFLA_INFO_KIND)
            is_vrf = text_of(&inner) == "vrf";
        if (type == IFLA_INFO_DATA && is_vrf) // its kind comes first, as the kernel writes it
            for_each_attribute(mnl_attr_get_payload(&inner), mnl_attr_get_payload_len(&inner),
                               [&](const nlattr& data) {
                                   if (mnl_attr_get_type(&data) == IFLA_VRF_TABLE)
                                       table = netlink_value<std::uint32_t>(&data);
                               });
    });
    return table;
}

bool covers(const LocalPrefix& wide, const LocalPrefix& narrow) {
    if (wide.bits > narrow.bits)
        return false;
    for (std::uint32_t bit = 0; bit < wide.bits; ++bit)
        if ((wide.address[bit / 8] ^ narrow.address[bit / 8]) & (0x80U >> bit % 8))
            return false;
    return true;
}

// A VRF's member is an endpoint of its own; a member of anything else hands its frames upward before IP
// sees them.
bool is_port(const NetlinkAttributes<IFLA_MAX + 1>& attributes) {
    if (!attributes[IFLA_MASTER])
        return false;
    bool port = true;
    for_each_linkinfo(attributes[IFLA_LINKINFO], [&](int type, const nlattr& inner) {
        if (type == IFLA_INFO_SLAVE_KIND)
            port = text_of(&inner) != "vrf";
    });
    return port;
}

} // namespace

std::vector<sock_filter> local_route_filter() {
    return {
        // A filter loads in network byte order, netlink writes in the host's.
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_NEWRULE), 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htons(RTM_DELRULE), 2, 0),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, NLMSG_HDRLEN + offsetof(rtmsg, rtm_type)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RTN_LOCAL, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
}

Result<Links> read_links(Netlink& netlink) {
    Links links;
    NetlinkRequest request(RTM_GETLINK);
    request.head<ifinfomsg>().ifi_family = AF_UNSPEC;
    request.put_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    const auto done = netlink.dump(
        request, "cannot list the network interfaces", [&] { links.clear(); },
        [&](const nlmsghdr& message) {
            const auto* head = head_of<ifinfomsg>(message);
            if (!head || message.nlmsg_type != RTM_NEWLINK)
                return;
            const auto attributes = attributes_of<IFLA_MAX + 1>(message, sizeof *head);
            Link link;
            link.endpoint.ifindex = static_cast<std::uint32_t>(head->ifi_index);
            if (attributes[IFLA_IFNAME])
                link.endpoint.name = text_of(attributes[IFLA_IFNAME]);
            link.endpoint.ethernet = head->ifi_type == ARPHRD_ETHER || head->ifi_type == ARPHRD_LOOPBACK;
            link.loopback = (head->ifi_flags & IFF_LOOPBACK) != 0;
            link.port = is_port(attributes);
            link.vrf_table = vrf_table_of(attributes[IFLA_LINKINFO]);
            links[link.endpoint.ifindex] = std::move(link);
        });
    if (!done)
        return std::unexpected(done.error());
    return links;
}

Result<HeldAddresses> read_addresses(Netlink& netlink) {
    HeldAddresses all;
    for (const auto family : ip_families) {
        HeldAddresses held;
        NetlinkRequest request(RTM_GETADDR);
        request.head<ifaddrmsg>().ifa_family = family;
        const auto done = netlink.dump(
            request, "cannot list the interfaces' addresses", [&] { held = {}; },
            [&](const nlmsghdr& message) {
                const auto* head = head_of<ifaddrmsg>(message);
                if (!head || message.nlmsg_type != RTM_NEWADDR)
                    return;
                held.holders.insert(head->ifa_index);
                const auto attributes = attributes_of<IFA_MAX + 1>(message, sizeof *head);
                const auto flags = netlink_value<std::uint32_t>(attributes[IFA_FLAGS], head->ifa_flags);
                if (family != AF_INET6 || !(flags & IFA_F_TENTATIVE))
                    return;
                // IFA_ADDRESS is the peer's on a point-to-point link, where IFA_LOCAL is given too.
                const nlattr* own = attributes[IFA_LOCAL] ? attributes[IFA_LOCAL] : attributes[IFA_ADDRESS];
                if (const auto prefix = prefix_of(family, own, 128))
                    held.tentative.insert(*prefix);
            });
        if (!done && !family_is_absent(family, done.error()))
            return std::unexpected(done.error());
        all.holders.merge(held.holders);
        all.tentative.merge(held.tentative);
    }
    return all;
}

std::set<std::uint32_t> vrf_tables(const Links& links) {
    std::set<std::uint32_t> tables;
    for (const auto& [ifindex, link] : links)
        if (link.vrf_table != 0)
            tables.insert(link.vrf_table);
    return tables;
}

Result<std::set<LocalPrefix>> read_local_routes(Netlink& netlink, const std::set<std::uint32_t>& tables) {
    std::set<LocalPrefix> all;
    for (const auto family : ip_families) {
        for (const std::uint32_t table : tables) {
            std::set<LocalPrefix> prefixes;
            NetlinkRequest request(RTM_GETROUTE);
            // With strict checking these are a filter; an older kernel ignores them.
            auto& wanted = request.head<rtmsg>();
            wanted.rtm_family = family;
            wanted.rtm_table = static_cast<unsigned char>(table < 256 ? table : RT_TABLE_UNSPEC);
            wanted.rtm_type = RTN_LOCAL;
            if (table > 255)
                request.put_u32(RTA_TABLE, table);
            const auto done = netlink.dump(
                request, "cannot list the local routes", [&] { prefixes.clear(); },
                [&](const nlmsghdr& message) {
                    const auto* head = head_of<rtmsg>(message);
                    if (!head || message.nlmsg_type != RTM_NEWROUTE || head->rtm_type != RTN_LOCAL ||
                        (head->rtm_flags & RTM_F_CLONED) || head->rtm_family != family)
                        return;
                    const auto attributes = attributes_of<RTA_MAX + 1>(message, sizeof *head);
                    if (netlink_value<std::uint32_t>(attributes[RTA_TABLE], head->rtm_table) != table)
                        return;
                    if (const auto prefix = prefix_of(family, attributes[RTA_DST], head->rtm_dst_len))
                        prefixes.insert(*prefix);
                });
            // A table that has never held a route does not exist (ENOENT).
            if (!done && done.error().code != ENOENT && !family_is_absent(family, done.error()))
                return std::unexpected(done.error());
            all.merge(prefixes);
        }
    }
    return all;
}

Addresses combine(const Links& links, const HeldAddresses& held, const std::set<LocalPrefix>& routes,
                  const std::set<LocalPrefix>& in_vrf) {
    Addresses addresses;
    for (const auto& [ifindex, link] : links)
        if (link.loopback || (held.holders.contains(ifindex) && !link.port))
            addresses.endpoints.emplace(ifindex, link.endpoint);
    addresses.local = routes;
    addresses.local.insert(held.tentative.begin(), held.tentative.end());
    for (const LocalPrefix& each : in_vrf)
        if (std::ranges::none_of(addresses.local, [&](const LocalPrefix& l) { return covers(l, each); }))
            addresses.local_in_vrf.insert(each);
    return addresses;
}

} // namespace syngate
