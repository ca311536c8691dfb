// SPDX-License-Identifier: GPL-2.0-or-later
// Blue-green: a server that cannot listen beside its predecessor is given one of two ports of its own, which
// clients never see.
#pragma once

#include "base/ports.hpp"
#include "server/children.hpp"

namespace syngate {

inline constexpr const char* backing_port_name = "SYNGATE_PORT";

// Two that nobody uses now, of the kernel's choice.
Result<PortSet> pick_backing_ports();

// With {SYNGATE_PORT} replaced wherever it stands.
Argv with_backing_port(Argv argv, std::uint16_t port);

} // namespace syngate
