// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/rules.hpp"

#include <charconv>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <utility>
#include <vector>

namespace syngate::rules {
namespace {

constexpr std::string_view prefix = "SYNGATE-";
constexpr std::size_t id_digits = 16;
constexpr std::size_t multiport_max = 15; // XT_MULTI_PORTS; a range counts twice
constexpr auto a_syn = "-p tcp -m tcp --tcp-flags SYN,ACK SYN";

std::string chain(std::uint64_t owner, const char* part = "") {
    return fmt::format("{}{:016x}{}", prefix, owner, part);
}

using Runs = std::vector<std::pair<std::uint16_t, std::uint16_t>>;

Runs runs_of(const PortSet& ports) {
    Runs runs;
    for (const std::uint16_t port : ports) {
        if (!runs.empty() && runs.back().second + 1 == port)
            runs.back().second = port;
        else
            runs.emplace_back(port, port);
    }
    return runs;
}

std::string port_rule(const Gate& gate, const std::string& match) {
    return fmt::format("-A {} -p tcp {} -j {}\n", chain(gate.owner, "-p"), match, chain(gate.owner, "-v"));
}

std::string port_rules(const Gate& gate, const PortSet& ports) {
    std::string text;
    std::string list;
    std::size_t used = 0;
    const auto end_list = [&] {
        if (used > 0)
            text += port_rule(gate, "-m multiport --dports " + list);
        list.clear();
        used = 0;
    };
    for (const auto& [first, last] : runs_of(ports)) {
        const std::string run = first == last ? fmt::format("{}", first) : fmt::format("{}:{}", first, last);
        if (!gate.multiport) {
            text += port_rule(gate, "-m tcp --dport " + run);
            continue;
        }
        const std::size_t needs = first == last ? 1 : 2;
        if (used + needs > multiport_max)
            end_list();
        list += (list.empty() ? "" : ",") + run;
        used += needs;
    }
    end_list();
    return text;
}

std::string in_table(const std::string& lines) {
    return fmt::format("*{}\n{}COMMIT\n", table, lines);
}

// In a restore that flushes nothing, this empties the chain or makes it.
std::string emptied(const std::string& name) {
    return fmt::format(":{} - [0:0]\n", name);
}

std::string notes(const Gate& gate) {
    return (gate.made_table ? emptied(chain(gate.owner, "-t")) : "") +
           (gate.made_input_chain ? emptied(chain(gate.owner, "-i")) : "");
}

std::string list_name(const Gate& gate) {
    return chain(gate.owner, gate.ipv6 ? "-6" : "-4");
}

std::string recent_match(const Gate& gate) {
    return fmt::format("-m recent --rcheck --seconds {} --name {} --mask {} --rsource", gate.lease_seconds,
                       list_name(gate), gate.ipv6 ? "::" : "0.0.0.0");
}

std::string lease_rule(const Gate& gate) {
    return fmt::format("-A {} {} -j {}\n", chain(gate.owner), recent_match(gate), chain(gate.owner, "-p"));
}

std::string time_match(std::time_t last_second) {
    return fmt::format("-m time --datestop {:%Y-%m-%dT%H:%M:%S}", fmt::gmtime(last_second));
}

std::string queue_target(const Gate& gate) {
    return fmt::format("NFQUEUE --queue-num {} --queue-bypass", gate.queue);
}

// Calls f(line, counters) for each line of this table, or of all tables for "". The line comes without its
// counters.
template <class F> void for_each_line(std::string_view saved, std::string_view of, F&& f) {
    bool ours = of.empty();
    while (!saved.empty()) {
        const std::size_t end = saved.find('\n');
        std::string_view line = saved.substr(0, end);
        saved.remove_prefix(end == saved.npos ? saved.size() : end + 1);
        if (line.starts_with('*'))
            ours = of.empty() || line.substr(1) == of;
        if (!ours)
            continue;
        std::string_view counters;
        if (line.starts_with('[')) {
            counters = line.substr(0, line.find(']'));
            line.remove_prefix(std::min(line.size(), counters.size() + 2));
        }
        f(line, counters);
    }
}

std::string_view word_at(std::string_view text) {
    return text.substr(0, text.find(' '));
}

// The owner's digits, if this is the name of a chain of ours.
std::optional<std::uint64_t> owner_of(std::string_view name) {
    if (!name.starts_with(prefix) || name.size() < prefix.size() + id_digits)
        return {};
    const char* begin = name.data() + prefix.size();
    std::uint64_t owner = 0;
    const auto [end, error] = std::from_chars(begin, begin + id_digits, owner, 16);
    const std::string_view rest = name.substr(prefix.size() + id_digits);
    if (error != std::errc{} || end != begin + id_digits || (!rest.empty() && rest.front() != '-'))
        return {};
    return owner;
}

std::set<std::string> chains_of(std::string_view saved, std::uint64_t owner) {
    std::set<std::string> found;
    for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        if (line.starts_with(':') && owner_of(word_at(line.substr(1))) == owner)
            found.emplace(word_at(line.substr(1)));
    });
    return found;
}

} // namespace

std::string staged(const Gate& gate, const PortSet& ports) {
    std::string lines;
    for (const char* part : {"", "-p", "-v"})
        lines += emptied(chain(gate.owner, part));
    lines += notes(gate);
    lines += fmt::format("-A {} -j {}\n", chain(gate.owner, "-v"), gate.hold ? queue_target(gate) : "DROP");
    lines += port_rules(gate, ports);
    if (gate.lease_by == LeaseBy::recent)
        lines += lease_rule(gate);
    lines += fmt::format("-I {} {} -j {}\n", hook, a_syn, chain(gate.owner));
    return in_table(lines);
}

std::string with_lease(const Gate& gate) {
    return in_table(emptied(chain(gate.owner)) + lease_rule(gate));
}

std::string closed_until(const Gate& gate, std::time_t second) {
    return in_table(emptied(chain(gate.owner)) + fmt::format("-A {} {} -j {}\n", chain(gate.owner),
                                                             time_match(second - 1),
                                                             chain(gate.owner, "-p")));
}

std::string opened(const Gate& gate) {
    return in_table(emptied(chain(gate.owner)));
}

const char* name_of(Extension extension) {
    switch (extension) {
    case Extension::multiport:
        return "xt_multiport";
    case Extension::recent:
        return "xt_recent";
    case Extension::time:
        return "xt_time";
    case Extension::nfqueue:
        return "nfqueue";
    }
    return "?";
}

std::string trial(const Gate& gate, const std::set<Extension>& of) {
    const std::string name = chain(gate.owner);
    std::string lines = emptied(name) + notes(gate) + fmt::format("-A {} {} -j DROP\n", name, a_syn);
    if (of.contains(Extension::multiport))
        lines += fmt::format("-A {} -p tcp -m multiport --dports 1,3,5:6 -j DROP\n", name);
    if (of.contains(Extension::recent))
        lines += fmt::format("-A {} {} -j DROP\n", name, recent_match(gate));
    if (of.contains(Extension::time))
        lines += fmt::format("-A {} {} -j DROP\n", name, time_match(0));
    if (of.contains(Extension::nfqueue))
        lines += fmt::format("-A {} -j {}\n", name, queue_target(gate));
    return in_table(lines);
}

std::string list_path(const Gate& gate) {
    return "/proc/net/xt_recent/" + list_name(gate);
}

const char* list_entry(bool ipv6) {
    return ipv6 ? "::" : "0.0.0.0";
}

std::set<std::uint64_t> owners(std::string_view saved) {
    std::set<std::uint64_t> all;
    for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        if (line.starts_with(':'))
            if (const auto owner = owner_of(word_at(line.substr(1))); owner)
                all.insert(*owner);
    });
    return all;
}

std::string removal(std::string_view saved, std::uint64_t owner) {
    const auto chains = chains_of(saved, owner);
    if (chains.empty())
        return "";
    std::string lines;
    // Whatever refers to us from elsewhere, which is our own jump.
    for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        const std::size_t jump = line.rfind(" -j ");
        if (!line.starts_with("-A ") || jump == line.npos ||
            chains.contains(std::string(word_at(line.substr(3)))))
            return;
        if (chains.contains(std::string(word_at(line.substr(jump + 4)))))
            lines += fmt::format("-D{}\n", line.substr(2));
    });
    for (const char* verb : {"-F", "-X"})
        for (const std::string& name : chains)
            lines += fmt::format("{} {}\n", verb, name);
    return in_table(lines);
}

std::uint64_t judged(std::string_view saved, std::uint64_t owner) {
    std::uint64_t sum = 0;
    const std::string verdict = fmt::format("-A {} ", chain(owner, "-v"));
    for_each_line(saved, table, [&](std::string_view line, std::string_view counters) {
        std::uint64_t packets = 0;
        if (line.starts_with(verdict) && counters.size() > 1)
            std::from_chars(counters.data() + 1, counters.data() + counters.size(), packets);
        sum += packets;
    });
    return sum;
}

bool holds_rules(std::string_view saved) {
    bool found = false;
    for_each_line(saved, "", [&](std::string_view line, std::string_view) {
        const bool is_rule = line.starts_with("-A ");
        const bool is_chain = line.starts_with(':') && line.find(" ACCEPT ") == line.npos;
        const std::string_view name = line.substr(std::min<std::size_t>(line.size(), is_rule ? 3 : 1));
        // What an agent has there says nothing about the administrator's choice.
        found |= (is_rule || is_chain) && !owner_of(word_at(name)) && line.find(" -j SYNGATE-") == line.npos;
    });
    return found;
}

Made made(std::string_view saved, std::optional<std::uint64_t> owner) {
    Made noted;
    for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        if (!line.starts_with(':'))
            return;
        const std::string_view name = word_at(line.substr(1));
        const auto by = owner_of(name);
        if (!by || (owner && by != owner))
            return;
        noted.table |= name.ends_with("-t");
        noted.input_chain |= name.ends_with("-i");
    });
    return noted;
}

bool input_accepts(std::string_view saved) {
    bool accepts = false;
    for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        accepts |= line.starts_with(fmt::format(":{} ACCEPT ", hook));
    });
    return accepts;
}

} // namespace syngate::rules
