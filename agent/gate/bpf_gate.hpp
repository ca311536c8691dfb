// SPDX-License-Identifier: GPL-2.0-or-later
// The gate by BPF: maps and programs (gate_maps), where they sit (attachments), what is put back
// (replayer), and what `bpftool map` shows (pins).
#pragma once

#include "event/loop.hpp"
#include "gate/attachments.hpp"
#include "gate/divert_program.hpp"
#include "gate/gate.hpp"

#include <memory>
#include <optional>
#include <string>

namespace syngate {

struct BpfGateOptions {
    Hook hook = Hook::automatic;
    Policy policy = Policy::hold;       // only for what status says and the warning that hold is not possible
    std::size_t park_memory = 4U << 20; // bytes
    Duration max_window = std::chrono::seconds(30);
    std::string pin_base;
    std::uint64_t owner_id = 0;
    std::optional<DivertOptions> divert; // none: no transparent proxying
    Sockets* sockets = nullptr;          // who listens, and how full their queues are; outlives the gate
};

// Loads, attaches, pins; complete() attaches to the rest of the endpoints. On an error nothing is left
// attached or pinned. Without a divert program that is not needed the gate is there, and its status says why.
Result<std::unique_ptr<Gate>> make_bpf_gate(Loop& loop, const BpfGateOptions& options);

} // namespace syngate
