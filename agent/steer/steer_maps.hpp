// SPDX-License-Identifier: GPL-2.0-or-later
// The steering's BPF object in this process: its programs and its maps. What is in which map:
// include/syngate/abi.h.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"
#include "net/listen_address.hpp"

#include <cstdint>
#include <memory>
#include <syngate/abi.h>

struct steer;

namespace syngate {

class SteerMaps {
public:
    // Exit::impossible where the kernel has no sk_lookup programs (5.9), or a capability is missing.
    static Result<std::unique_ptr<SteerMaps>> load(std::uint64_t owner_id);
    ~SteerMaps();

    // Attaches to this network namespace; the link, which is not pinned, detaches when it is closed.
    [[nodiscard]] Result<Fd> attach() const;

    [[nodiscard]] int lookup_program() const;
    [[nodiscard]] int capture_program() const;
    [[nodiscard]] int sockets() const; // the map's descriptor

    Result<void> set_rule(std::uint32_t generation, const ListenAddress& at, const syngate_steer_rule& rule);
    void remove_rule(std::uint32_t generation, const ListenAddress& at);
    [[nodiscard]] syngate_steer_rule rule(std::uint32_t generation, const ListenAddress& at) const;
    // The cookie of the socket there; 0: the slot is empty.
    [[nodiscard]] std::uint64_t cookie_in(std::uint32_t slot) const;
    void clear_slot(std::uint32_t slot);

    // The one atomic step. 0: nothing is steered.
    void activate(std::uint32_t generation);
    [[nodiscard]] syngate_steer_verdicts verdicts() const; // summed over the CPUs

    // Pins every map that people look at under this directory.
    Result<void> pin(const std::string& directory);

private:
    SteerMaps() = default;
    ::steer* skeleton_ = nullptr;
    syngate_steer* word_ = nullptr; // mapped from the map `steer`
};

} // namespace syngate
