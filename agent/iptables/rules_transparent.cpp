// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/rules_transparent.hpp"

#include "iptables/rules_text.hpp"
#include "net/listen_address.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <fmt/format.h>

namespace syngate::rules {
namespace {

constexpr std::uint32_t mapped_bits = 96; // of an IPv4 prefix, before its own

bool is_of_family(const LocalPrefix& prefix, bool ipv6) {
    constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (prefix.bits == 0)
        return true;
    const bool is_ipv4 =
        prefix.bits >= mapped_bits && std::equal(mapped.begin(), mapped.end(), prefix.address.begin());
    return is_ipv4 != ipv6;
}

std::string set_mark(const Transparent& how) {
    return fmt::format("-j MARK --set-xmark {:#x}/{:#x}", how.mark, how.mask);
}

} // namespace

std::vector<Intercept> by_length(const std::vector<Intercept>& intercepts, bool ipv6) {
    std::vector<Intercept> sorted;
    std::ranges::copy_if(intercepts, std::back_inserter(sorted),
                         [&](const Intercept& each) { return is_of_family(each.prefix, ipv6); });
    std::ranges::stable_sort(sorted, std::ranges::greater(),
                             [](const Intercept& i) { return i.prefix.bits; });
    return sorted;
}

std::string match_of(const Intercept& rule, bool ipv6) {
    std::string match = fmt::format("-p tcp -m tcp --dport {}", rule.port);
    if (rule.prefix.bits == 0)
        return match;
    char text[INET6_ADDRSTRLEN]{};
    ::inet_ntop(ipv6 ? AF_INET6 : AF_INET, rule.prefix.address.data() + (ipv6 ? 0 : 12), text, sizeof text);
    return fmt::format("-d {}/{} {}", text, rule.prefix.bits - (ipv6 ? 0 : mapped_bits), match);
}

// It asks for one of the interface's address that the packet came by. One that is bound to another interface
// would not be found, and the SYN dropped.
PortSet intercepted_to(const std::vector<Listener>& listeners, bool ipv6) {
    PortSet ports;
    for (const Listener& listener : listeners) {
        const bool of_family = listener.ipv6 == ipv6 || (listener.ipv6 && !listener.ipv6_only && !ipv6);
        if (of_family && address_of(listener).is_any() && listener.device == 0 &&
            listener.transparent.value_or(true))
            ports.insert(listener.port);
    }
    return ports;
}

std::string transparent(const Transparent& how, const std::vector<Intercept>& intercepts,
                        const PortSet& listened, const std::string& lease, bool with_jumps) {
    const std::string divert = text::chain(how.owner, "-d"), intercept = text::chain(how.owner, "-l");
    const char* icmp = how.ipv6 ? "ipv6-icmp" : "icmp";
    std::string lines = text::emptied(divert) + text::emptied(intercept) + notes(how.owner, how.made);
    bool any = false;
    for (const Intercept& rule : by_length(intercepts, how.ipv6)) {
        const bool listens = listened.contains(rule.listen_port);
        any |= listens;
        lines += fmt::format("-A {} {} -j {}\n", intercept, match_of(rule, how.ipv6),
                             listens ? fmt::format("TPROXY --on-port {} --tproxy-mark {:#x}/{:#x}",
                                                   rule.listen_port, how.mark, how.mask)
                                     : "RETURN");
    }
    if (any)
        lines += fmt::format("-A {} {} {} -j {}\n", divert, text::a_syn, lease, intercept);
    for (const char* protocol : {"tcp", icmp})
        lines += fmt::format("-A {} -p {} -m socket --transparent {}\n", divert, protocol, set_mark(how));
    if (with_jumps)
        for (const char* protocol : {"tcp", icmp})
            lines += fmt::format("-I PREROUTING ! -i lo -p {}{}{} -j {}\n", protocol, how.addrtype ? " " : "",
                                 how.addrtype ? text::to_others : "", divert);
    return text::in_table(mangle, lines);
}

TransparentCounts transparent_counts(std::string_view saved, std::uint64_t owner) {
    TransparentCounts counts;
    const std::string divert = fmt::format("-A {} ", text::chain(owner, "-d"));
    const std::string intercept = fmt::format("-A {} ", text::chain(owner, "-l"));
    text::for_each_line(saved, mangle, [&](std::string_view line, std::string_view counters) {
        const std::uint64_t packets = text::packets_in(counters);
        if (line.starts_with(intercept) && line.find(" -j TPROXY ") != line.npos)
            counts.intercepted += packets;
        else if (line.starts_with(divert) && line.find(" -j MARK ") != line.npos)
            (line.find(" -p tcp ") != line.npos ? counts.diverted : counts.diverted_error) += packets;
    });
    return counts;
}

} // namespace syngate::rules
