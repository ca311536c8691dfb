// SPDX-License-Identifier: GPL-2.0-or-later
// Every string that iptables is given or that is looked for in what it says. Pure text: rule sets for
// iptables-restore in, iptables-save out.
//
// The gate is in the table mangle, whose INPUT is traversed before filter's: what is queued or let through
// here meets the administrator's own filter rules afterwards, as if there were no gate.
//
//     INPUT               SYNs without ACK go to the gate's chain
//     SYNGATE-<id>        the gate: its one rule matches as long as the gate is closed
//     SYNGATE-<id>-p      the ports
//     SYNGATE-<id>-v      the verdict: DROP or NFQUEUE
//     SYNGATE-<id>-t, -i  empty; that the table, or its INPUT, was made for an agent
#pragma once

#include "base/ports.hpp"

#include <cstdint>
#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace syngate::rules {

inline constexpr const char* table = "mangle";
inline constexpr const char* hook = "INPUT"; // the table's chain that our jump is in

// What opens a gate that nobody opens.
enum class LeaseBy {
    recent, // the entry of an xt_recent list, of a number of seconds on the kernel's monotonic clock
    time    // xt_time's --datestop, by the wall clock
};

struct Gate {
    std::uint64_t owner = 0; // the agent's id
    bool ipv6 = false;
    LeaseBy lease_by = LeaseBy::recent;
    unsigned lease_seconds = 1; // of recent
    bool multiport = true;      // else a rule for each run of ports
    bool hold = false;          // NFQUEUE, else DROP
    std::uint16_t queue = 0;
    // By iptables-nft for an agent; noted as chains without a rule, for whoever clears up.
    bool made_table = false;
    bool made_input_chain = false;
};

// All of the gate, open: to be given to iptables-restore --noflush. With LeaseBy::recent, what closes it is
// an entry in its list.
std::string staged(const Gate& gate, const PortSet& ports);
// LeaseBy::recent alone: another lease_seconds than was staged.
std::string with_lease(const Gate& gate);
// LeaseBy::time alone: closed until (and without) this second of the wall clock, from 1970; open.
std::string closed_until(const Gate& gate, std::time_t second);
std::string opened(const Gate& gate);

// Extensions of which one can be missing, for a trial in a chain that nothing refers to.
enum class Extension { multiport, recent, time, nfqueue };
inline constexpr Extension extensions[] = {Extension::multiport, Extension::recent, Extension::time,
                                           Extension::nfqueue};
const char* name_of(Extension extension); // as in feature::
std::string trial(const Gate& gate, const std::set<Extension>& of);

// The file of the xt_recent list, and the entry in it that means closed.
std::string list_path(const Gate& gate);
const char* list_entry(bool ipv6);

// --- in the output of iptables-save, with or without -c ---
// Agents that have a chain there.
std::set<std::uint64_t> owners(std::string_view saved);
// What removes all that is this agent's, for iptables-restore --noflush; "" if there is nothing.
std::string removal(std::string_view saved, std::uint64_t owner);
// Packets that came to the verdict.
std::uint64_t judged(std::string_view saved, std::uint64_t owner);
// Rules, and chains or policies that nobody has by default.
bool holds_rules(std::string_view saved);
// What this agent, or any, has noted of the making of the table and of its INPUT.
struct Made {
    bool table = false;
    bool input_chain = false;
};
Made made(std::string_view saved, std::optional<std::uint64_t> owner = {});
// INPUT lets pass what meets no rule, as it does by default.
bool input_accepts(std::string_view saved);

} // namespace syngate::rules
