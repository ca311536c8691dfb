// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace syngate {

// Puts frames into the stack as if an interface had just received them (BPF_PROG_RUN with
// BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).
class Replayer {
public:
    // Exit::impossible when the kernel does not take the programs.
    static Result<std::unique_ptr<Replayer>> load();
    ~Replayer();

    // Asks the kernel with a frame that is dropped at once. Errors carry errno: EINVAL where the kernel has
    // no live frames or the device no receive queue.
    [[nodiscard]] Result<void> probe(std::uint32_t ifindex) const;
    // frame begins with an Ethernet header. What came in on lo by IPv4 is sent again, by a raw socket
    // (CAP_NET_RAW): as received without the route that it had brought along, the kernel takes it for a
    // martian and drops it.
    [[nodiscard]] Result<void> replay(std::uint32_t ifindex, std::span<const std::uint8_t> frame) const;

private:
    Replayer();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace syngate
