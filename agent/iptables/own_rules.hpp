// SPDX-License-Identifier: GPL-2.0-or-later
// What an agent has in the tables, and how it is taken away: chains by their names, and of iptables-nft also
// the table and base chains that came with them.
#pragma once

#include "base/result.hpp"
#include "iptables/rules.hpp"
#include "iptables/tool.hpp"

#include <optional>
#include <set>
#include <string>

namespace syngate {

constexpr Duration usual_lock_wait = std::chrono::seconds(5);
// Of what nobody has asked for: the loop has others to serve, and it comes again.
constexpr Duration loop_lock_wait = std::chrono::seconds(1);

// Before the first rule: what of the table and these hooks is, or will be, there only for agents. To be noted
// in the rules. said: by iptables-save just now; without, it is asked.
rules::Made note_makings(const Tool& tool, std::uint64_t owner, const std::string& table,
                         const std::set<std::string>& hooks, const std::optional<std::string>& said = {});

// Takes these chains away, and the jumps to them. If they are the agent's last in this table, then what it
// has made there as well, unless keep_makings. Returns what iptables-save said before.
Result<std::string> remove_parts(const Tool& tool, const std::string& table, std::uint64_t owner,
                                 const rules::Parts& parts, Duration lock_wait = usual_lock_wait,
                                 bool keep_makings = false);

// Of an agent that is dead: everything. False: what keeps connections alive that it had redirected stays, as
// long as they last.
Result<bool> remove_everything(const Tool& tool, std::uint64_t owner);

// The flip's chain in the table nat, and what was made with it. Connections that were redirected are
// translated by conntrack as long as a rule has need of it: while there are some, the chain stays and nothing
// leads to it. Returns their number.
Result<std::size_t> retire_redirects(const Tool& tool, std::uint64_t owner,
                                     Duration lock_wait = usual_lock_wait);

} // namespace syngate
