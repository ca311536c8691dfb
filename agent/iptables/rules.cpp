// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/rules.hpp"

#include "iptables/rules_text.hpp"
#include "iptables/rules_transparent.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <utility>
#include <vector>

namespace syngate::rules {
namespace {

using text::chain;
using text::emptied;
using text::in_table;

constexpr std::size_t multiport_max = 15; // XT_MULTI_PORTS; a range counts twice

// Chains without a rule that stand for what iptables-nft has made.
constexpr std::string_view table_note = "-t";
constexpr std::pair<std::string_view, const char*> chain_notes[] = {
    {"-i", "INPUT"}, {"-r", "PREROUTING"}, {"-o", "OUTPUT"}};

bool is_note(std::string_view part) {
    return part == table_note || part == "-i" || part == "-r" || part == "-o";
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

// What is intercepted to a gated port; the others, so that a longer prefix of theirs goes before. What is not
// intercepted, because nobody listens, is forwarded.
std::string intercept_rules(const Gate& gate, const PortSet& ports) {
    std::string text;
    for (const Intercept& rule : by_length(gate.intercepts, gate.ipv6))
        text += fmt::format("-A {} {} -j {}\n", chain(gate.owner, "-f"), match_of(rule, gate.ipv6),
                            ports.contains(rule.listen_port) && gate.intercepted_to.contains(rule.listen_port)
                                ? chain(gate.owner, "-v")
                                : "RETURN");
    return text;
}

// The chains that a SYN comes to first, each with the one behind it.
std::vector<std::pair<std::string_view, std::string_view>> doors_of(const Gate& gate) {
    if (gate.intercepts.empty())
        return {{"", "-p"}};
    return {{"", "-p"}, {"-c", "-f"}};
}

std::string emptied_doors(const Gate& gate) {
    std::string lines;
    for (const auto& [door, behind] : doors_of(gate))
        lines += emptied(chain(gate.owner, door));
    return lines;
}

// As long as `match` matches, the doors lead to what is behind them. To INPUT come also SYNs to foreign
// addresses that somebody's TPROXY has led here, whose port is not one of this host's: what we intercept
// meets the other door, by the port of its listener.
std::string closed_by(const Gate& gate, const std::string& match) {
    std::string lines;
    for (const auto& [door, behind] : doors_of(gate))
        lines += fmt::format("-A {} {}{} -j {}\n", chain(gate.owner, door), match,
                             door.empty() && gate.addrtype ? fmt::format(" {}", text::to_here) : "",
                             chain(gate.owner, behind));
    return lines;
}

std::string lease_match(const Gate& gate) {
    return recent_match(gate.ipv6, list_name(gate.owner, gate.ipv6), gate.lease_seconds);
}

std::string queue_target(std::uint16_t queue) {
    return fmt::format("NFQUEUE --queue-num {} --queue-bypass", queue);
}

// Those of `parts`, by name.
std::set<std::string> chains_of(std::string_view saved, std::string_view table, std::uint64_t owner,
                                const Parts& parts) {
    std::set<std::string> found = text::chains_of(saved, table, owner);
    std::erase_if(found, [&](const std::string& name) { return !parts.contains(text::part_of(name)); });
    return found;
}

std::string jump_removals(std::string_view saved, std::string_view table,
                          const std::set<std::string>& chains) {
    std::string lines;
    text::for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        const std::size_t jump = line.rfind(" -j ");
        if (!line.starts_with("-A ") || jump == line.npos ||
            chains.contains(std::string(text::word_at(line.substr(3)))))
            return;
        if (chains.contains(std::string(text::word_at(line.substr(jump + 4)))))
            lines += fmt::format("-D{}\n", line.substr(2));
    });
    return lines;
}

Made made_if(std::string_view saved, std::string_view table, const auto& by) {
    Made noted;
    text::for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        const std::string_view name = text::word_at(line.substr(std::min<std::size_t>(line.size(), 1)));
        const auto owner = text::owner_of(name);
        if (!line.starts_with(':') || !owner || !by(*owner))
            return;
        noted.table |= text::part_of(name) == table_note;
        for (const auto& [part, hook] : chain_notes)
            if (text::part_of(name) == part)
                noted.chains.insert(hook);
    });
    return noted;
}

} // namespace

std::string notes(std::uint64_t owner, const Made& made) {
    std::string lines;
    if (made.table)
        lines += emptied(chain(owner, table_note));
    for (const auto& [part, hook] : chain_notes)
        if (made.chains.contains(hook))
            lines += emptied(chain(owner, part));
    return lines;
}

std::set<std::string> hooks_of(const Gate& gate) {
    if (gate.intercepts.empty())
        return {"INPUT"};
    return {"INPUT", "PREROUTING"};
}

std::string staged(const Gate& gate, const PortSet& ports) {
    std::string lines;
    for (const auto& [door, behind] : doors_of(gate))
        lines += emptied(chain(gate.owner, door)) + emptied(chain(gate.owner, behind));
    lines += emptied(chain(gate.owner, "-v")) + notes(gate.owner, gate.made);
    lines +=
        fmt::format("-A {} -j {}\n", chain(gate.owner, "-v"), gate.hold ? queue_target(gate.queue) : "DROP");
    lines += port_rules(gate, ports);
    if (!gate.intercepts.empty())
        lines += intercept_rules(gate, ports);
    if (gate.lease_by == LeaseBy::recent)
        lines += closed_by(gate, lease_match(gate));
    lines += fmt::format("-I INPUT {} -j {}\n", text::a_syn, chain(gate.owner));
    if (!gate.intercepts.empty())
        lines += fmt::format("-I PREROUTING ! -i lo {} {} -j {}\n", text::a_syn, text::to_others,
                             chain(gate.owner, "-c"));
    return in_table(mangle, lines);
}

std::string with_lease(const Gate& gate) {
    return in_table(mangle, emptied_doors(gate) + closed_by(gate, lease_match(gate)));
}

std::string closed_between(const Gate& gate, std::time_t first, std::time_t end) {
    return in_table(mangle, emptied_doors(gate) + closed_by(gate, time_match(first, end)));
}

std::string opened(const Gate& gate) {
    return in_table(mangle, emptied_doors(gate));
}

std::string recent_match(bool ipv6, const std::string& list, unsigned seconds) {
    return fmt::format("-m recent --rcheck --seconds {} --name {} --mask {} --rsource", seconds, list,
                       ipv6 ? "::" : "0.0.0.0");
}

std::string time_match(std::time_t first, std::time_t end) {
    return fmt::format("-m time --datestart {:%Y-%m-%dT%H:%M:%S} --datestop {:%Y-%m-%dT%H:%M:%S}",
                       fmt::gmtime(first), fmt::gmtime(end - 1));
}

std::string list_name(std::uint64_t owner, bool ipv6, std::string_view purpose) {
    return chain(owner, fmt::format("-{}{}", purpose, ipv6 ? 6 : 4));
}

std::string list_path(const std::string& list) {
    return "/proc/net/xt_recent/" + list;
}

const char* list_entry(bool ipv6) {
    return ipv6 ? "::" : "0.0.0.0";
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
    case Extension::addrtype:
        return "xt_addrtype";
    case Extension::socket:
        return "xt_socket";
    case Extension::mark:
        return "xt_mark";
    case Extension::tproxy:
        return "xt_TPROXY";
    case Extension::dnat:
        return "xt_DNAT";
    }
    return "?";
}

std::string trial(std::uint64_t owner, bool ipv6, const Made& made_mangle, const Made& made_nat,
                  const ExtensionSet& of) {
    const std::string name = chain(owner, "-y");
    const std::string begin = fmt::format("-A {} {}", name, text::a_syn);
    const auto rule = [&](Extension extension) -> std::string {
        switch (extension) {
        case Extension::multiport:
            return fmt::format("-A {} -p tcp -m multiport --dports 1,3,5:6 -j DROP", name);
        case Extension::recent:
            return fmt::format("{} {} -j DROP", begin, recent_match(ipv6, list_name(owner, ipv6, "y"), 1));
        case Extension::time:
            return fmt::format("{} {} -j DROP", begin, time_match(0, 1));
        case Extension::nfqueue:
            return fmt::format("-A {} -j {}", name, queue_target(0));
        case Extension::addrtype:
            return fmt::format("{} {} -j DROP", begin, text::to_others);
        case Extension::socket:
            return fmt::format("-A {} -p tcp -m socket --transparent -j DROP", name);
        case Extension::mark:
            return fmt::format("-A {} -j MARK --set-xmark 0x1/0x1", name);
        case Extension::tproxy:
            return fmt::format("{} -j TPROXY --on-port 1 --tproxy-mark 0x1/0x1", begin);
        case Extension::dnat:
            break;
        }
        return "";
    };
    std::string lines = emptied(name) + notes(owner, made_mangle) + begin + " -j DROP\n";
    for (const Extension each : of)
        if (const std::string line = rule(each); !line.empty())
            lines += line + "\n";
    std::string all = in_table(mangle, lines);
    if (of.contains(Extension::dnat))
        all += in_table(nat, emptied(name) + notes(owner, made_nat) +
                                 fmt::format("{} -j DNAT --to-destination :1\n", begin));
    return all;
}

std::set<std::uint64_t> owners(std::string_view saved) {
    std::set<std::uint64_t> all;
    for (const char* table : {mangle, nat})
        text::for_each_line(saved, table, [&](std::string_view line, std::string_view) {
            if (line.starts_with(':'))
                if (const auto owner = text::owner_of(text::word_at(line.substr(1))); owner)
                    all.insert(*owner);
        });
    return all;
}

std::string removal(std::string_view saved, std::string_view table, std::uint64_t owner, const Parts& parts) {
    const auto chains = chains_of(saved, table, owner, parts);
    if (chains.empty())
        return "";
    std::string lines = jump_removals(saved, table, chains);
    for (const char* verb : {"-F", "-X"})
        for (const std::string& name : chains)
            lines += fmt::format("{} {}\n", verb, name);
    return in_table(table, lines);
}

std::string jumps_removal(std::string_view saved, std::string_view table, std::uint64_t owner,
                          const Parts& parts) {
    const std::string lines = jump_removals(saved, table, chains_of(saved, table, owner, parts));
    return lines.empty() ? "" : in_table(table, lines);
}

bool has_chains(std::string_view saved, std::string_view table, std::uint64_t owner) {
    const auto all = text::chains_of(saved, table, owner);
    return all.size() > notes_of(saved, table, owner).size();
}

std::vector<std::string> notes_of(std::string_view saved, std::string_view table, std::uint64_t owner) {
    std::vector<std::string> names;
    for (const std::string& name : text::chains_of(saved, table, owner))
        if (is_note(text::part_of(name)))
            names.push_back(name);
    return names;
}

std::uint64_t judged(std::string_view saved, std::uint64_t owner) {
    std::uint64_t sum = 0;
    const std::string verdict = fmt::format("-A {} ", chain(owner, "-v"));
    text::for_each_line(saved, mangle, [&](std::string_view line, std::string_view counters) {
        if (line.starts_with(verdict))
            sum += text::packets_in(counters);
    });
    return sum;
}

bool holds_rules(std::string_view saved) {
    bool found = false;
    text::for_each_line(saved, "", [&](std::string_view line, std::string_view) {
        const bool is_rule = line.starts_with("-A ");
        const bool is_chain = line.starts_with(':') && line.find(" ACCEPT ") == line.npos;
        const std::string_view name = line.substr(std::min<std::size_t>(line.size(), is_rule ? 3 : 1));
        // What an agent has there says nothing about the administrator's choice.
        found |= (is_rule || is_chain) && !text::owner_of(text::word_at(name)) &&
                 line.find(" -j SYNGATE-") == line.npos;
    });
    return found;
}

Made made(std::string_view saved, std::string_view table, std::optional<std::uint64_t> owner) {
    return made_if(saved, table, [&](std::uint64_t by) { return !owner || by == *owner; });
}

Made made_by_others(std::string_view saved, std::string_view table, std::uint64_t than) {
    return made_if(saved, table, [&](std::uint64_t by) { return by != than; });
}

bool accepts(std::string_view saved, std::string_view table, std::string_view hook) {
    bool accepts = false;
    text::for_each_line(saved, table, [&](std::string_view line, std::string_view) {
        accepts |= line.starts_with(fmt::format(":{} ACCEPT ", hook));
    });
    return accepts;
}

} // namespace syngate::rules
