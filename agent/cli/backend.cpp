// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/backend.hpp"

#include "gate/bpf_gate.hpp"
#include "iptables/iptables_gate.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

Result<std::unique_ptr<Gate>> by_bpf(Loop& loop, const GateOptions& options, std::uint64_t owner_id,
                                     Sockets& sockets, const std::optional<DivertOptions>& divert) {
    BpfGateOptions gate;
    gate.hook = options.hook;
    gate.policy = options.policy;
    gate.park_memory = options.park_memory;
    gate.max_window = options.max_window;
    gate.pin_base = options.bpffs;
    gate.owner_id = owner_id;
    gate.divert = divert;
    gate.sockets = &sockets;
    return make_bpf_gate(loop, gate);
}

Result<std::unique_ptr<Gate>> by_iptables(Loop& loop, const GateOptions& options, std::uint64_t owner_id,
                                          Sockets& sockets, const std::optional<DivertOptions>& divert) {
    IptablesGateOptions gate;
    gate.policy = options.policy;
    gate.lease = options.lease;
    gate.park_memory = options.park_memory;
    gate.max_window = options.max_window;
    gate.owner_id = owner_id;
    gate.sockets = &sockets;
    if (divert)
        gate.intercepts = divert->intercepts;
    return make_iptables_gate(loop, gate);
}

} // namespace

Result<std::unique_ptr<Gate>> make_gate(Loop& loop, const GateOptions& options, std::uint64_t owner_id,
                                        Sockets& sockets, const std::optional<DivertOptions>& divert) {
    if (options.mode == Mode::iptables)
        return by_iptables(loop, options, owner_id, sockets, divert);
    auto bpf = by_bpf(loop, options, owner_id, sockets, divert);
    if (bpf || options.mode == Mode::bpf || bpf.error().exit == Exit::busy)
        return bpf;
    auto iptables = by_iptables(loop, options, owner_id, sockets, divert);
    if (!iptables &&
        iptables.error().exit == Exit::busy) // such as the xtables lock: later it may be possible
        return failure(
            Exit::busy,
            fmt::format("BPF is not possible: {}; {}", bpf.error().message, iptables.error().message),
            iptables.error().code);
    if (!iptables)
        return failure(Exit::impossible, fmt::format("neither mode is possible here: bpf: {}; iptables: {}",
                                                     bpf.error().message, iptables.error().message));
    spdlog::warn("mode iptables ({}), as BPF is not possible: {}", (*iptables)->status().hook,
                 bpf.error().message);
    return iptables;
}

} // namespace syngate
