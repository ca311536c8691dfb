// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/fd.hpp"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace syngate::bench {

// A flood: one frame again and again, by XDP live frames (BPF_PROG_RUN) that a program redirects into a veth
// device, so that they arrive at its peer. The kernel drops what the peer's ring has no room for.
class Generator {
public:
    // In the calling thread's network namespace, out of the device with this index.
    Generator(std::uint32_t ifindex, std::vector<std::uint8_t> frame);
    ~Generator(); // ends the flood
    Generator(const Generator&) = delete;
    Generator& operator=(const Generator&) = delete;

    // Frames so far, those included that found no room.
    [[nodiscard]] std::uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }

private:
    void run(const std::stop_token& stop);

    std::uint32_t ifindex_;
    std::vector<std::uint8_t> frame_;
    Fd program_;
    std::atomic<std::uint64_t> sent_ = 0;
    std::jthread thread_;
};

} // namespace syngate::bench
