// SPDX-License-Identifier: GPL-2.0-or-later
// Packets by hand: a tun device, SYNs that no socket knows, and what arrives on an interface.
#pragma once

#include "base/fd.hpp"
#include "netns/robust_agent.hpp"

#include <optional>
#include <string>
#include <vector>

namespace syngate::live::robust {

using Bytes = std::vector<std::uint8_t>;

// A whole IPv4 or IPv6 packet with a SYN, checksums right.
Bytes syn(const Target& from, const Target& to);

struct TcpSeen {
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
    bool is_syn = false; // without ACK
    bool is_syn_ack = false;
};
// Of an IP packet without extension headers; empty if it is no TCP.
std::optional<TcpSeen> tcp_in(const Bytes& packet);

// An IP device in the calling thread's namespace; goes with this object.
class Tun {
public:
    Tun(const std::string& name, const std::vector<std::string>& addresses);
    void write(const Bytes& packet) const;
    // The next TCP packet that the host sends here.
    [[nodiscard]] std::optional<TcpSeen> read_tcp(Duration deadline) const;

private:
    Fd fd_;
};

// Everything that arrives on the device, as an AF_PACKET socket sees it.
class Capture {
public:
    Capture(const Namespace& where, const std::string& device);
    // The next SYN from this source port, with its Ethernet header.
    [[nodiscard]] std::optional<Bytes> next_syn(std::uint16_t source_port, Duration deadline) const;

private:
    Fd fd_;
};

// Sends a packet of syn() as it is; the kernel routes it.
void send_raw(const Namespace& from, const Target& to, const Bytes& packet);

} // namespace syngate::live::robust
