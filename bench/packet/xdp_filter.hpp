// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/fd.hpp"

#include <cstdint>
#include <string>

namespace syngate::bench {

// xdp-filter of xdp-tools on a device of the calling thread's namespace, with one TCP destination port
// denied, in its smallest form that can do so (`--features tcp`). Throws what it says if it cannot be loaded
// here.
class XdpFilter {
public:
    XdpFilter(const std::string& device, const std::string& mode, std::uint16_t port); // "native", "skb"
    ~XdpFilter();
    XdpFilter(const XdpFilter&) = delete;
    XdpFilter& operator=(const XdpFilter&) = delete;

    // What sits on the device: libxdp's dispatcher, which calls the filter.
    [[nodiscard]] int program() const { return program_.get(); }

private:
    std::string device_;
    Fd program_;
};

} // namespace syngate::bench
