// SPDX-License-Identifier: GPL-2.0-or-later
// Steering by an sk_lookup program in this network namespace. Its link dies with the process: what was
// steered goes by the kernel's own rules from then on.
#pragma once

#include "steer/steering.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace syngate {

struct BpfSteeringOptions {
    std::string pins; // an existing directory; empty: the maps are not pinned
    std::uint64_t owner_id = 0;
};

// Loads and attaches; steers nothing yet. Exit::impossible where that cannot be done here.
Result<std::unique_ptr<Steering>> make_bpf_steering(const BpfSteeringOptions& options);

} // namespace syngate
