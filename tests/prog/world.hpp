// SPDX-License-Identifier: GPL-2.0-or-later
// The network namespace in which this process's programs run; made once, gone with the process.
//   v0  an Ethernet interface with the server's MAC, 10.0.0.1 and 2001:db8::1
//   v1  where 10.9.0.0/16 and 2001:db8:9::/48 are routed to: 10.9.0.5 and 2001:db8:9::5 have a
//       neighbour entry, 10.9.0.6 and 2001:db8:9::6 have none, 10.9.0.7 has a path MTU of 600
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <string>

namespace syngate::prog {

// Enters the namespace on the first call. Exit::impossible: no privilege for it.
Result<> enter_world();

// Runs `ip -batch` in the caller's namespace.
Result<> ip_batch(const std::string& commands);

std::uint32_t index_of(const char* interface);

// Both families, of one interface.
Result<> set_forwarding(const std::string& interface, bool on);

} // namespace syngate::prog
