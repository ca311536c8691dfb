// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/rules_redirect.hpp"

#include "iptables/rules_text.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <fmt/format.h>

namespace syngate::rules {
namespace {

std::string address_text(const ListenAddress& at) {
    char text[INET6_ADDRSTRLEN]{};
    ::inet_ntop(at.ipv6 ? AF_INET6 : AF_INET, at.address.data(), text, sizeof text);
    return text;
}

std::string match_of(const Redirect& redirect) {
    return fmt::format("{}{} --dport {}",
                       redirect.at.is_any() ? "" : fmt::format("-d {} ", address_text(redirect.at)),
                       text::a_syn, redirect.at.port);
}

std::string target_of(const Redirect& redirect) {
    if (redirect.to == 0)
        return "RETURN";
    // Another port of the same address. Not -j REDIRECT, which puts one of the interface in its place, and
    // drops what comes in by an interface without one.
    return fmt::format("DNAT --to-destination :{}", redirect.to);
}

// The number behind `what`, or behind the last ':' of the word there.
std::uint16_t port_behind(std::string_view line, std::string_view what) {
    const std::size_t at = line.find(what);
    if (at == line.npos)
        return 0;
    std::string_view word = text::word_at(line.substr(at + what.size()));
    if (const std::size_t colon = word.rfind(':'); colon != word.npos)
        word.remove_prefix(colon + 1);
    std::uint16_t port = 0;
    std::from_chars(word.data(), word.data() + word.size(), port);
    return port;
}

} // namespace

std::string redirected(const Redirection& how, const std::vector<Redirect>& redirects,
                       const std::string& lease, bool with_jumps) {
    const std::string name = text::chain(how.owner, "-n");
    std::string lines = text::emptied(name) + notes(how.owner, how.made);
    for (const bool any : {false, true})
        for (const Redirect& each : redirects)
            if (each.at.ipv6 == how.ipv6 && each.at.is_any() == any)
                lines += fmt::format("-A {} {} {} -j {}\n", name, match_of(each), lease, target_of(each));
    std::string unreachable;
    for (const Redirect& each : how.former)
        if (each.at.ipv6 == how.ipv6)
            unreachable += fmt::format("-A {} {} -j {}\n", name, match_of(each), target_of(each));
    if (!unreachable.empty())
        lines += fmt::format("-A {} -j RETURN\n", name) + unreachable;
    if (with_jumps)
        for (const char* hook : {"PREROUTING", "OUTPUT"})
            lines += fmt::format("-I {} -p tcp {} -j {}\n", hook, text::to_here, name);
    return text::in_table(nat, lines);
}

std::vector<Redirected> redirects_in(std::string_view saved, std::uint64_t owner, bool ipv6) {
    std::vector<Redirected> found;
    const std::string rule = fmt::format("-A {} ", text::chain(owner, "-n"));
    text::for_each_line(saved, nat, [&](std::string_view line, std::string_view counters) {
        if (!line.starts_with(rule))
            return;
        const std::uint16_t to = port_behind(line, "--to-destination ");
        if (to != 0)
            found.push_back({ipv6, port_behind(line, "--dport "), to, text::packets_in(counters)});
    });
    return found;
}

} // namespace syngate::rules
