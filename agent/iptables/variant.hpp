// SPDX-License-Identifier: GPL-2.0-or-later
// Which iptables: the nft and the legacy variant keep their rules in different places of the kernel.
#pragma once

#include "iptables/tool.hpp"

#include <string>
#include <vector>

namespace syngate {

struct Variant {
    std::string name;            // "nft", "legacy"
    std::vector<Tool> tools;     // IPv4's, then IPv6's if there is IPv6 here and a program for it
    std::string no_ipv6_because; // set if there is IPv6 but no program
    bool holds_rules = false;
    bool is_default = false; // what plain `iptables` is
};

// Those that are installed and not switched off; nothing is known of their rules, nor which one is the
// default.
std::vector<Variant> installed_variants();
// The same with all that is to be known, the best one first. Empty: there is none.
std::vector<Variant> find_variants();

// The one whose tables hold rules, then the default one; two that are alike stay in their order.
void sort_by_choice(std::vector<Variant>& variants);

// IPv6 in this network namespace.
bool has_ipv6();

} // namespace syngate
