// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/clock.hpp"
#include "common/result.hpp"
#include "netns/namespace.hpp"
#include "prog/packet.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace syngate::bench {

// Two namespaces and a veth, whose server's end, in that of the calling thread, has its NAPI in a thread of
// its own (threaded NAPI): what a packet costs there is that thread's CPU time, and making the flood is not
// in it.
struct FloodScene {
    static constexpr auto server_v4 = "10.78.0.1";
    static constexpr auto client_v4 = "10.78.0.2";

    live::Namespace server = live::Namespace::current();
    live::Namespace client;
    std::string device, peer;
    std::uint32_t index = 0; // of `device`

    // Throws where the kernel cannot.
    FloodScene();
    // Its link-layer header.
    [[nodiscard]] prog::Packet frame() const;
    // The same frame from the client again and again, for so long. To be called where the scene was made.
    [[nodiscard]] Json flood(const std::vector<std::uint8_t>& frame, Duration length) const;

private:
    [[nodiscard]] std::uint64_t received() const;
};

} // namespace syngate::bench
