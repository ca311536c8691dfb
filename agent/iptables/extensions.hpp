// SPDX-License-Identifier: GPL-2.0-or-later
// What this kernel and these programs let a gate's rules use, found by adding such rules to a chain that
// nothing refers to, and taking them away again.
#pragma once

#include "base/result.hpp"
#include "iptables/rules.hpp"
#include "iptables/tool.hpp"

#include <map>
#include <string>

namespace syngate {

struct Extensions {
    std::map<rules::Extension, std::string> missing; // and why
    [[nodiscard]] bool has(rules::Extension one) const { return !missing.contains(one); }
};

// Error: not even a rule without extensions can be made.
Result<Extensions> try_extensions(const Tool& tool, const rules::Gate& gate);

// Before the first rule: notes in the gate whether the table is there only for it and its like.
void note_makings(const Tool& tool, rules::Gate& gate);

// Takes away all that is this owner's, whatever it is. Returns what it counted before: rules::judged.
Result<std::uint64_t> remove_rules(const Tool& tool, std::uint64_t owner,
                                   Duration lock_wait = std::chrono::seconds(5));

} // namespace syngate
