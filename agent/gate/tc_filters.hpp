// SPDX-License-Identifier: GPL-2.0-or-later
// What traffic control holds on an interface, ours and others'.
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace syngate {

struct TcFilter {
    std::uint32_t priority = 0;
    std::uint32_t handle = 0;
    std::uint16_t protocol = 0;   // EtherType, host byte order; 3 (ETH_P_ALL) for every frame
    std::string kind;             // "bpf", "u32", "flower", ...
    std::uint32_t program_id = 0; // of a bpf filter
    std::string program_name;     // of a bpf filter, as whoever added it called it
    bool ingress = true;
};

// Both directions of the interface's clsact (or ingress) qdisc; none without one.
Result<std::vector<TcFilter>> list_tc_filters(std::uint32_t ifindex);

// Removes one filter of ours from ingress.
Result<void> remove_tc_filter(std::uint32_t ifindex, std::uint32_t priority, std::uint32_t handle);

// Removes clsact if no filter is left in it; somebody else's filters keep it.
Result<void> remove_clsact_if_empty(std::uint32_t ifindex);

} // namespace syngate
