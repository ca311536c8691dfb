// SPDX-License-Identifier: GPL-2.0-or-later
// What this kernel and these programs let our rules use, found by adding such rules to a chain that nothing
// refers to, and taking them away again.
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
    // "xt_socket: why; xt_mark: why", of those that are missing.
    [[nodiscard]] std::string why_not(const rules::ExtensionSet& of) const;
};

// Error: not even a rule without extensions can be made.
Result<Extensions> try_extensions(const Tool& tool, std::uint64_t owner, const rules::ExtensionSet& wanted);

} // namespace syngate
