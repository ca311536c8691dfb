// SPDX-License-Identifier: GPL-2.0-or-later
// iptables in a live test: whose rules, and by which variant.
#pragma once

#include <string>
#include <utility>

namespace syngate::live {

// For an agent's environment: of "nft" and "legacy" only this one, and without the features in `without`,
// "a,b".
std::pair<std::string, std::string> only_variant(const std::string& variant, const std::string& without = "");

// All rules, chains and policies of both variants, IPv4's and IPv6's, as *-save writes them; without counters
// and comments.
std::string all_rules();
// Those of one variant.
std::string rules_of(const std::string& variant);

// Makes legacy's tables, which come into being when they are first asked for and stay as long as the
// namespace.
void make_legacy_tables();
// Whoever's they are, of both variants; for a test's end.
void remove_all_rules();

} // namespace syngate::live
