// SPDX-License-Identifier: GPL-2.0-or-later
// iptables-nft makes the table and the base chain that a rule needs, and no program of it takes the table
// away again. The kernel does, atomically, if nobody uses it.
#pragma once

#include <string>

namespace syngate {

// In this network namespace; true also if the kernel does not say.
bool nft_table_exists(bool ipv6);
bool nft_chain_exists(bool ipv6, const std::string& chain);

// Only if it is empty; quietly not otherwise.
void remove_nft_chain(bool ipv6, const std::string& chain);
void remove_nft_table(bool ipv6);

} // namespace syngate
