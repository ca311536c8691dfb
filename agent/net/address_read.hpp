// SPDX-License-Identifier: GPL-2.0-or-later
// The rtnetlink dumps behind AddressWatch, each a picture of one kind of thing.
#pragma once

#include "net/address_watch.hpp"
#include "net/netlink.hpp"

namespace syngate {

struct Link {
    Endpoint endpoint;
    bool loopback = false;
    bool port = false;           // of a bridge, a bond, a team: its frames belong to the upper device
    std::uint32_t vrf_table = 0; // of a VRF device
};
using Links = std::map<std::uint32_t, Link>; // by ifindex

struct HeldAddresses {
    std::set<std::uint32_t> holders; // ifindex of each interface with an address
    std::set<LocalPrefix> tentative; // IPv6 addresses under duplicate address detection
};

Result<Links> read_links(Netlink& netlink);
Result<HeldAddresses> read_addresses(Netlink& netlink);
// Routes of type RTN_LOCAL in these tables, both families.
Result<std::set<LocalPrefix>> read_local_routes(Netlink& netlink, const std::set<std::uint32_t>& tables);
std::set<std::uint32_t> vrf_tables(const Links& links);

// in_vrf: those of the VRFs' tables.
Addresses combine(const Links& links, const HeldAddresses& held, const std::set<LocalPrefix>& routes,
                  const std::set<LocalPrefix>& in_vrf);

// For a NetlinkListener: of messages about routes lets only those of type RTN_LOCAL through, so that a router
// that learns a million routes does not wake us once for each. A notification is one message; classic BPF
// counts from its nlmsghdr.
std::vector<sock_filter> local_route_filter();

} // namespace syngate
