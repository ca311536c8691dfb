// SPDX-License-Identifier: GPL-2.0-or-later
// Every string that iptables is given or that is looked for in what it says. Pure text: rule sets for
// iptables-restore in, iptables-save out. This file has the gate's, and what all have in common.
//
// The gate is in the table mangle, whose INPUT is traversed before filter's: what is queued or let through
// here meets the administrator's own filter rules afterwards, as if there were no gate.
//
//     mangle INPUT          SYNs without ACK go to the gate's chain
//     SYNGATE-<id>          the gate: its one rule matches as long as the gate is closed
//     SYNGATE-<id>-p        the ports
//     SYNGATE-<id>-v        the verdict: DROP or NFQUEUE
//     mangle PREROUTING     where connections are intercepted: their SYNs, before -j TPROXY sees them
//     SYNGATE-<id>-c, -f    the same gate for them; what is intercepted to a gated port
//     SYNGATE-<id>-d, -l    transparent proxying (rules_transparent.hpp)
//     nat PREROUTING, OUTPUT
//     SYNGATE-<id>-n        the flip (rules_redirect.hpp)
//     SYNGATE-<id>-t, -i, -r, -o   empty; that the table, or its INPUT, PREROUTING or OUTPUT, was made for
//                                  an agent
#pragma once

#include "base/ports.hpp"
#include "gate/intercept.hpp"

#include <cstdint>
#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace syngate::rules {

inline constexpr const char* mangle = "mangle";
inline constexpr const char* nat = "nat";

// Which chains of an agent.
using Parts = std::set<std::string_view>;
inline const Parts gate_parts{"", "-p", "-v", "-c", "-f"};
inline const Parts transparent_parts{"-d", "-l"};
inline const Parts redirect_parts{"-n"};
inline const Parts trial_parts{"-y"};

// What opens a gate that nobody opens, and ends rules whose agent has died.
enum class LeaseBy {
    recent, // the entry of an xt_recent list, of a number of seconds on the kernel's monotonic clock
    time    // xt_time's --datestart and --datestop, by the wall clock
};

// By iptables-nft for an agent; noted as chains without a rule, for whoever clears up.
struct Made {
    bool table = false;
    std::set<std::string> chains; // "INPUT", ...
    bool operator==(const Made&) const = default;
};

struct Gate {
    std::uint64_t owner = 0; // the agent's id
    bool ipv6 = false;
    LeaseBy lease_by = LeaseBy::recent;
    unsigned lease_seconds = 1; // of recent
    bool multiport = true;      // else a rule for each run of ports
    bool addrtype = true;       // else SYNs to foreign addresses are gated that another's TPROXY leads here
    bool hold = false;          // NFQUEUE, else DROP
    std::uint16_t queue = 0;
    Made made = {};
    std::vector<Intercept> intercepts = {}; // those to a gated port are gated as well, if they are to one of
    PortSet intercepted_to = {};
};

// All of the gate, open: to be given to iptables-restore --noflush. With LeaseBy::recent, what closes it is
// an entry in its list.
std::string staged(const Gate& gate, const PortSet& ports);
// LeaseBy::recent alone: another lease_seconds than was staged.
std::string with_lease(const Gate& gate);
// LeaseBy::time alone: closed from one second of the wall clock, from 1970, until (and without) the other;
// open.
std::string closed_between(const Gate& gate, std::time_t first, std::time_t end);
std::string opened(const Gate& gate);
// The table's chains that the gate's jumps are in.
std::set<std::string> hooks_of(const Gate& gate);

// Matches as long as the list has an entry of its last `seconds`; at these seconds of the wall clock.
std::string recent_match(bool ipv6, const std::string& list, unsigned seconds);
std::string time_match(std::time_t first, std::time_t end);
// The name of an agent's list; purpose: "" (the gate), "l", "n" as its chains.
std::string list_name(std::uint64_t owner, bool ipv6, std::string_view purpose = "");
// Its file, and the entry in it that means closed, or in force.
std::string list_path(const std::string& list);
const char* list_entry(bool ipv6);

// Extensions of which one can be missing, for a trial in a chain that nothing refers to.
enum class Extension { multiport, recent, time, nfqueue, addrtype, socket, mark, tproxy, dnat };
using ExtensionSet = std::set<Extension>;
inline const ExtensionSet all_extensions{Extension::multiport, Extension::recent,   Extension::time,
                                         Extension::nfqueue,   Extension::addrtype, Extension::socket,
                                         Extension::mark,      Extension::tproxy,   Extension::dnat};
const char* name_of(Extension extension); // as in feature::
std::string trial(std::uint64_t owner, bool ipv6, const Made& made_mangle, const Made& made_nat,
                  const ExtensionSet& of);

// The chains that say so.
std::string notes(std::uint64_t owner, const Made& made);

// --- in the output of iptables-save, with or without -c ---
// Agents that have a chain in one of our tables.
std::set<std::uint64_t> owners(std::string_view saved);
// What removes these chains of an agent, and whatever refers to them, for iptables-restore --noflush; "" if
// there are none. Jumps alone: the chains stay.
std::string removal(std::string_view saved, std::string_view table, std::uint64_t owner, const Parts& parts);
std::string jumps_removal(std::string_view saved, std::string_view table, std::uint64_t owner,
                          const Parts& parts);
// Whether it has chains other than notes there; the names of its notes.
bool has_chains(std::string_view saved, std::string_view table, std::uint64_t owner);
std::vector<std::string> notes_of(std::string_view saved, std::string_view table, std::uint64_t owner);
// Packets that came to the verdict.
std::uint64_t judged(std::string_view saved, std::uint64_t owner);
// Rules, and chains or policies that nobody has by default.
bool holds_rules(std::string_view saved);
// What this agent, any other than it, or any, has noted.
Made made(std::string_view saved, std::string_view table, std::optional<std::uint64_t> owner = {});
Made made_by_others(std::string_view saved, std::string_view table, std::uint64_t than);
// The table's chain lets pass what meets no rule, as it does by default.
bool accepts(std::string_view saved, std::string_view table, std::string_view hook);

} // namespace syngate::rules
