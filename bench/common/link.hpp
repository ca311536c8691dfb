// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "netns/namespace.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace syngate::bench {

// The link-layer address of a device, in the lower 48 bits. Throws if there is no such device.
std::uint64_t mac_of(const live::Namespace& where, const std::string& device);

// Runs a program of this device's TCX ingress on a frame that it seems to have received; returns its verdict.
class TcxProgram {
public:
    // The first one. Throws where the kernel has no TCX (Linux 6.6) or nothing is there.
    explicit TcxProgram(const std::string& device);
    std::uint32_t run(const std::vector<std::uint8_t>& frame) const;
    static constexpr std::uint32_t drops = 2; // TCX_DROP

private:
    std::uint32_t index_;
    Fd program_;
};

} // namespace syngate::bench
