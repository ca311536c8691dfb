// SPDX-License-Identifier: GPL-2.0-or-later
// What brings marked packets to this host's own stack, for IPv4 and IPv6:
//     ip rule add priority PRIORITY fwmark MARK/MASK lookup TABLE protocol 83
//     ip route add local default dev lo table TABLE protocol 83
#pragma once

#include "base/result.hpp"
#include "net/routing_read.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace syngate {

// Who made a rule or route: a number that nobody else uses says that it is ours to remove. Taken, by
// /etc/iproute2/rt_protos and linux/rtnetlink.h, are 0 to 18, 42, 84, 99 and 186 to 192; by FRR 191 to 196.
inline constexpr std::uint8_t route_protocol = 83; // 'S'

struct RouteOptions {
    // Bit 12: the registry of marks (github.com/fwmark/registry) knows it of Cilium alone, whose host routing
    // does not live beside transparent proxies. Kubernetes has 13 to 15, Calico and Tailscale higher ones.
    std::uint32_t mark = 0x1000;
    std::uint32_t mask = 0x1000;
    std::uint32_t table = 8300;
    std::uint32_t priority = 8300; // before the tables main (32766) and default
};

// Exit::usage for what can never work: the kernel's own tables, a priority behind main, a mark of 0 or with
// bits outside its mask.
Result<void> check_options(const RouteOptions& options);

// Exit::busy, naming what is in the way: routes of others in the table, a rule of theirs with our priority or
// one that our mark, or theirs ours, would match.
Result<void> check_collisions(const RouteOptions& options, const std::vector<Rule>& rules,
                              const std::vector<Route>& routes_in_table);

// What agents have made here and is there now, by the protocol number and by its form.
struct OwnRouting {
    std::vector<Rule> rules;
    std::vector<Route> routes;
    [[nodiscard]] bool empty() const { return rules.empty() && routes.empty(); }
};
Result<OwnRouting> find_own_routing();

// Removes it; to be called only when no living agent can be its owner. Returns one line for each thing
// removed.
Result<std::vector<std::string>> remove_own_routing(const OwnRouting& own);

// Takes out of `own` what these options would have, and returns it: it can be taken over as it is.
OwnRouting take_fitting(OwnRouting& own, const RouteOptions& options);

// The rules and routes, until this object goes.
class PolicyRouting {
public:
    // All or nothing, but IPv6 may be missing or disabled. The caller has made sure that no other agent of
    // this network namespace has such rules, and swept those of dead ones. Of `taken_over` nothing is made
    // anew: packets under way meet it all the time.
    static Result<std::unique_ptr<PolicyRouting>> set_up(const RouteOptions& options,
                                                         const OwnRouting& taken_over = {});
    ~PolicyRouting();
    // Another agent needs it, or removes it: nothing is removed in the end.
    void leave();
    PolicyRouting(const PolicyRouting&) = delete;
    PolicyRouting& operator=(const PolicyRouting&) = delete;

    [[nodiscard]] const RouteOptions& options() const { return options_; }
    [[nodiscard]] const std::string& no_ipv6_because() const {
        return no_ipv6_because_;
    } // empty: it is there

private:
    PolicyRouting(Netlink netlink, const RouteOptions& options)
        : netlink_(std::move(netlink)), options_(options) {}
    Result<void> add(int family, const OwnRouting& taken_over);

    Netlink netlink_;
    RouteOptions options_;
    std::vector<Rule> rules_;
    std::vector<Route> routes_;
    std::string no_ipv6_because_;
};

} // namespace syngate
