// SPDX-License-Identifier: GPL-2.0-or-later
// Settings and devices of this host that keep transparent connections from working, and what to do about
// each. Only read, never changed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace syngate {

struct Obstacle {
    std::string what; // as "net.ipv4.conf.eth0.src_valid_mark", or a device
    std::string text; // one sentence: what is so, what it does, and what to do
};

struct ObstacleSources {
    std::string sysctls = "/proc/sys/net";
    std::string devices = "/sys/class/net";
};

// interfaces: those that marked packets arrive on.
std::vector<Obstacle> find_obstacles(const std::vector<std::string>& interfaces,
                                     const ObstacleSources& sources = {});

} // namespace syngate
