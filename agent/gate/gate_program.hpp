// SPDX-License-Identifier: GPL-2.0-or-later
// A gate program of any agent, met as a tc filter: who owns it, read from its own maps.
#pragma once

#include "base/fd.hpp"

#include <cstdint>
#include <optional>
#include <syngate/abi.h>

namespace syngate {

struct GateProgram {
    std::uint64_t owner_id = 0;
    Fd interfaces; // its map `interfaces`
};

// Empty when the program is none of ours, or of another ABI.
std::optional<GateProgram> inspect_gate_program(std::uint32_t program_id);

// The program's entry for an interface.
std::optional<syngate_interface> interface_of(const GateProgram& program, std::uint32_t ifindex);

// To be called when an agent that made this interface's clsact qdisc has taken its filter off: removes the
// qdisc when no filter is left in it. Another agent's filter inherits it; somebody else's keeps it.
void release_clsact(std::uint32_t ifindex);

} // namespace syngate
