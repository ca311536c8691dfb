// SPDX-License-Identifier: GPL-2.0-or-later
// A small language for frames, outermost header first:
//   Packet().eth().vlan(100).ipv4({.dst = "10.0.0.1"}).tcp({.dport = 80, .options = 20}).payload(9)
// Lengths, next-header fields and checksums are computed from what follows, unless given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

namespace syngate::prog {

using Bytes = std::vector<std::uint8_t>;

// Field values to go through.
using List8 = std::initializer_list<std::uint8_t>;
using List16 = std::initializer_list<std::uint16_t>;

// TCP flag bits, as in byte 13 of the header.
enum : std::uint8_t { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128 };

// The default addresses of both families make the IP header readable as an Ethernet header too: see
// Hook::tc_l3 in gate_fixture.hpp.
constexpr std::string_view client4 = "8.0.0.2", server4 = "10.0.0.1";
constexpr std::string_view client6 = "2001:db8:86dd::2", server6 = "2001:db8::1";
constexpr std::uint64_t server_mac = 0x02'00'00'00'00'01, client_mac = 0x02'00'00'00'00'02;

struct Eth {
    std::uint64_t dst = server_mac, src = client_mac; // the lower 48 bits
    std::optional<std::uint16_t> type = {};
};

struct Ipv4 {
    std::string_view src = client4, dst = server4;
    std::size_t options = 0;           // bytes of no-operations, a multiple of 4
    std::uint16_t fragment_offset = 0; // in 8 bytes
    bool more_fragments = false;
    std::uint8_t version = 4;
    std::optional<std::uint8_t> ihl = {}, protocol = {};
    std::optional<std::uint16_t> tot_len = {};
};

struct Ipv6 {
    std::string_view src = client6, dst = server6;
    std::uint8_t traffic_class = 0x10;
    std::uint8_t version = 6;
    std::optional<std::uint8_t> next = {};
    std::optional<std::uint16_t> payload_len = {};
};

struct Routing {
    std::uint8_t segments_left = 0, type = 4;
    std::uint8_t units = 2; // of 8 bytes, after the first
    std::optional<std::uint8_t> next = {};
};

struct Fragment {
    std::uint16_t offset = 0; // in 8 bytes
    bool more = false;
};

struct Tcp {
    std::uint16_t sport = 40000, dport = 80;
    std::uint8_t flags = SYN;
    std::size_t options = 0; // bytes of no-operations, a multiple of 4
    std::optional<std::uint8_t> doff = {};
};

struct Ports {
    std::uint16_t sport = 40000, dport = 80;
};

class Packet {
public:
    Packet& eth(const Eth& h = {});
    Packet& vlan(std::uint16_t tci, std::uint16_t tpid = 0x8100);
    Packet& ipv4(const Ipv4& h = {});
    Packet& ipv6(const Ipv6& h = {});
    // `units` of 8 bytes follow the first 8.
    Packet& hop_by_hop(std::uint8_t units = 0) { return extension(0, units); }
    Packet& dest_options(std::uint8_t units = 0) { return extension(60, units); }
    Packet& mobility(std::uint8_t units = 0) { return extension(135, units); }
    Packet& routing(const Routing& h = {});
    Packet& fragment(const Fragment& h = {});
    // `units` of 4 bytes follow the first 8.
    Packet& authentication(std::uint8_t units = 4);
    Packet& tcp(const Tcp& h = {});
    Packet& udp(const Ports& h = {});
    Packet& icmp();                       // an echo request of the address family around it
    Packet& gre();                        // what follows is its payload
    Packet& arp();                        // a request
    Packet& other(std::uint8_t protocol); // a header-less payload of that IP protocol
    Packet& payload(std::size_t length);
    Packet& truncate(std::size_t length); // of the whole frame; lengths and checksums stay
    Packet& pad(std::size_t length);      // zeros behind the datagram, outside every length field
    Packet& set(std::size_t offset, std::uint8_t value); // after everything was computed

    // The frame; computes what was left open.
    [[nodiscard]] Bytes bytes() const;

private:
    struct Layer {
        enum Kind { ipv4, ipv6, tcp, udp, icmp } kind;
        std::size_t offset;
        bool length_given;
    };
    struct Edit {
        std::size_t offset;
        std::uint8_t value;
    };
    // Where the header before names the one that follows.
    struct Next {
        enum Kind { nothing, ether_type, protocol } kind = nothing;
        std::size_t offset = 0;
    };

    void follow(std::uint16_t ether_type, std::uint8_t protocol);
    void next_is_at(Next::Kind kind, std::size_t offset, bool given);
    Packet& extension(std::uint8_t protocol, std::uint8_t units);
    std::size_t append(std::size_t length, std::uint8_t fill = 0);
    void put16(std::size_t offset, std::size_t value);
    void put_address(std::size_t offset, int family, std::string_view address);

    Bytes data_;
    std::vector<Layer> layers_;
    std::vector<Edit> edits_;
    Next next_;
    std::size_t padding_ = 0;
    std::optional<std::size_t> length_;
};

} // namespace syngate::prog
