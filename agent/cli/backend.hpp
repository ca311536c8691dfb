// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "cli/options.hpp"
#include "event/loop.hpp"
#include "gate/divert_program.hpp"
#include "gate/gate.hpp"
#include "net/sock_diag.hpp"

#include <cstdint>
#include <memory>
#include <optional>

namespace syngate {

// The gate by the mode that was asked for. Mode auto tries BPF by making its gate; whatever speaks against it
// but another program in its place (Exit::busy) is told in one line, and iptables does the same job.
// divert: transparent proxying, which the gate of mode bpf does beside it; that of mode iptables only gates
// what is intercepted. Where it is not needed, mode bpf does without rather than not at all.
Result<std::unique_ptr<Gate>> make_gate(Loop& loop, const GateOptions& options, std::uint64_t owner_id,
                                        Sockets& sockets, const std::optional<DivertOptions>& divert = {});

} // namespace syngate
