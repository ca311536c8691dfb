// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/unanswered.hpp"

#include "iptables/conntrack.hpp"

#include <algorithm>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <vector>

namespace syngate {
namespace {

// A connection's name that outlives the message.
class Named {
public:
    explicit Named(const Tracked& connection)
        : connection_(connection), original_(copy(connection.original)), zone_(copy(connection.zone)),
          id_(copy(connection.id)) {}
    [[nodiscard]] Tracked get() const {
        Tracked named = connection_;
        named.original = attribute(original_);
        named.zone = attribute(zone_);
        named.id = attribute(id_);
        named.answering = nullptr;
        return named;
    }

private:
    static std::vector<char> copy(const nlattr* attribute) {
        const auto* begin = reinterpret_cast<const char*>(attribute);
        return attribute ? std::vector<char>(begin, begin + attribute->nla_len) : std::vector<char>();
    }
    static const nlattr* attribute(const std::vector<char>& bytes) {
        return bytes.empty() ? nullptr : reinterpret_cast<const nlattr*>(bytes.data());
    }

    Tracked connection_;
    std::vector<char> original_, zone_, id_;
};

// Not if its server answers just now: the client's ACK would be led anew.
bool forget_if_unanswered(Netlink& netlink, const Tracked& connection) {
    bool unanswered = false;
    const auto seen = look_at_connection(
        netlink, connection, [&](const Tracked& now) { unanswered = now.state == TCP_CONNTRACK_SYN_SENT; });
    return seen && unanswered && forget_connection(netlink, connection).has_value();
}

} // namespace

Result<std::size_t> forget_unanswered(const LedTo& now) {
    auto netlink = Netlink::open(NETLINK_NETFILTER);
    if (!netlink)
        return std::unexpected(netlink.error());
    const AnswersHere answers_here;
    std::size_t forgotten = 0;
    for (const bool ipv6 : {false, true}) {
        if (std::ranges::none_of(now, [&](const auto& each) { return each.first.first == ipv6; }))
            continue;
        std::vector<Named> found;
        const auto r = list_connections(
            *netlink, ipv6, true, [&] { found.clear(); },
            [&](const Tracked& each) {
                const auto led = now.find({ipv6, each.from});
                if (each.state == TCP_CONNTRACK_SYN_SENT && led != now.end() &&
                    !led->second.contains(each.to) && answers_here(each))
                    found.emplace_back(each);
            });
        if (!r)
            return std::unexpected(r.error());
        for (const Named& each : found)
            forgotten += forget_if_unanswered(*netlink, each.get());
    }
    return forgotten;
}

} // namespace syngate
