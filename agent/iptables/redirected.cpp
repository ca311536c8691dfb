// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/redirected.hpp"

#include "iptables/conntrack.hpp"
#include "net/sock_diag.hpp"

#include <algorithm>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

// Who sends on still, either of them.
bool goes_on(std::uint8_t state) {
    return state >= TCP_CONNTRACK_SYN_RECV && state <= TCP_CONNTRACK_LAST_ACK;
}

Result<std::vector<std::size_t>> count_by_conntrack(const std::vector<rules::Redirected>& redirects) {
    auto netlink = Netlink::open(NETLINK_NETFILTER);
    if (!netlink)
        return std::unexpected(netlink.error());
    const AnswersHere answers_here;
    std::vector<std::size_t> counts(redirects.size());
    for (const bool ipv6 : {false, true}) {
        if (std::ranges::none_of(redirects, [&](const auto& each) { return each.ipv6 == ipv6; }))
            continue;
        const auto restart = [&] {
            for (std::size_t i = 0; i < redirects.size(); ++i)
                if (redirects[i].ipv6 == ipv6)
                    counts[i] = 0;
        };
        const auto r = list_connections(*netlink, ipv6, false, restart, [&](const Tracked& each) {
            if (!goes_on(each.state))
                return;
            for (std::size_t i = 0; i < redirects.size(); ++i)
                if (redirects[i].ipv6 == ipv6 && redirects[i].port == each.from &&
                    redirects[i].to == each.to && answers_here(each))
                    ++counts[i];
        });
        if (!r)
            return std::unexpected(r.error());
    }
    return counts;
}

} // namespace

std::vector<std::size_t> count_redirected(const std::vector<rules::Redirected>& redirects) {
    if (redirects.empty())
        return {};
    auto by_conntrack = count_by_conntrack(redirects);
    if (by_conntrack)
        return std::move(*by_conntrack);
    spdlog::debug("{}; sockets are counted instead", by_conntrack.error().message);
    const auto sockets = open_sock_diag();
    std::vector<std::size_t> counts;
    for (const auto& each : redirects) {
        const auto connected =
            sockets ? (*sockets)->connected({each.to}, nullptr) : std::unexpected(sockets.error());
        counts.push_back(connected.value_or(1)); // who cannot look takes nothing away
    }
    return counts;
}

} // namespace syngate
