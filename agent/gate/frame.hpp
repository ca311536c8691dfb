// SPDX-License-Identifier: GPL-2.0-or-later
// Makes a parked frame fit to enter the stack again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <syngate/abi.h>
#include <vector>

namespace syngate {

enum class Checksum {
    whole,     // it was right, or cannot be judged (a first fragment): left as it is
    completed, // it was partial (CHECKSUM_PARTIAL: only the sum over the pseudo header), now it is whole
    wrong,     // it was wrong on the wire: left as it is, the stack drops and counts it
};

// A frame that begins with an Ethernet header. Completes a TCP checksum that the sending stack left to
// a device that never was (veth, lo, virtio); alters nothing else.
Checksum complete_checksum(std::span<std::uint8_t> frame);

// The frame as it would have come on the wire: a VLAN tag that the device took out is put back, and a
// frame without link-layer header gets an Ethernet header with zero addresses, which such devices
// take for their own.
std::vector<std::uint8_t> rebuild_frame(const syngate_parked& head, std::span<const std::uint8_t> frame);

} // namespace syngate
