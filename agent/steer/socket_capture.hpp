// SPDX-License-Identifier: GPL-2.0-or-later
// Gets other processes' listening sockets into the map `sockets`: neither ptrace nor the server's help is
// needed.
#pragma once

#include "steer/steer_maps.hpp"

#include <vector>

namespace syngate {

struct CaptureWant {
    Listener listener;
    std::uint32_t slot = 0;
};

// All of them, or an error that names the first listener that could not be captured; slots that were filled
// stay filled then.
Result<void> capture_listeners(SteerMaps& maps, const std::vector<CaptureWant>& wants);

} // namespace syngate
