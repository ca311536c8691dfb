// SPDX-License-Identifier: GPL-2.0-or-later
// iptables-nft makes the table and the base chain that a rule needs, and no program of it takes the table
// away again. The kernel does, atomically, if nobody uses it.
#pragma once

#include <string>
#include <vector>

namespace syngate {

// In this network namespace; true also if the kernel does not say.
bool nft_table_exists(bool ipv6, const std::string& table);
bool nft_chain_exists(bool ipv6, const std::string& table, const std::string& chain);

// All of it in one step, or nothing and the errno: EBUSY if there is a rule in one of the chains, or, with
// table_too, another chain in the table. Whatever waits in an NFQUEUE of this network namespace is dropped
// when a base chain goes.
int remove_nft(bool ipv6, const std::string& table, const std::vector<std::string>& chains, bool table_too);

} // namespace syngate
