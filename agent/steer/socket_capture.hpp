// SPDX-License-Identifier: GPL-2.0-or-later
// Gets other processes' listening sockets into the map `sockets`: neither ptrace nor the server's help is
// needed.
#pragma once

#include "steer/steer_maps.hpp"

#include <memory>
#include <vector>

namespace syngate {

class SocketCapture {
public:
    struct Want {
        Listener listener;
        std::uint32_t slot = 0;
    };

    // Exit::impossible where the kernel has no iterator that may do this (5.10).
    static Result<std::unique_ptr<SocketCapture>> make(SteerMaps& maps);

    // All of them, or an error that names the first listener that could not be captured; slots that were
    // filled stay filled then.
    Result<void> capture(const std::vector<Want>& wants);

private:
    SocketCapture(SteerMaps& maps, Fd link) : maps_(maps), link_(std::move(link)) {}
    Result<void> capture_once(const std::vector<Want>& wants);
    SteerMaps& maps_;
    Fd link_; // of the iterator
};

} // namespace syngate
