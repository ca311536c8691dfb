// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/packet.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cstdlib>
#include <string>

namespace syngate::prog {

namespace {

constexpr std::uint16_t type_ipv4 = 0x0800, type_arp = 0x0806, type_ipv6 = 0x86dd, type_teb = 0x6558;
constexpr std::uint8_t proto_icmp = 1, proto_ipip = 4, proto_tcp = 6, proto_udp = 17, proto_ipv6 = 41,
                       proto_routing = 43, proto_fragment = 44, proto_gre = 47, proto_ah = 51,
                       proto_icmpv6 = 58;

void store16(Bytes& data, std::size_t offset, std::size_t value) {
    data.at(offset) = static_cast<std::uint8_t>(value >> 8);
    data.at(offset + 1) = static_cast<std::uint8_t>(value);
}

std::uint32_t sum16(const Bytes& data, std::size_t from, std::size_t to, std::uint32_t sum) {
    for (std::size_t i = from; i < to; i++)
        sum += static_cast<std::uint32_t>(data[i] << ((i - from) % 2 ? 0 : 8));
    return sum;
}

std::uint16_t fold(std::uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

} // namespace

std::size_t Packet::append(std::size_t length, std::uint8_t fill) {
    const std::size_t offset = data_.size();
    data_.resize(offset + length, fill);
    return offset;
}

void Packet::put16(std::size_t offset, std::size_t value) {
    store16(data_, offset, value);
}

void Packet::put_address(std::size_t offset, int family, std::string_view address) {
    if (inet_pton(family, std::string(address).c_str(), &data_.at(offset)) != 1)
        std::abort(); // a typing error in a test
}

void Packet::follow(std::uint16_t ether_type, std::uint8_t protocol) {
    if (next_.kind == Next::ether_type)
        put16(next_.offset, ether_type);
    else if (next_.kind == Next::protocol)
        data_.at(next_.offset) = protocol;
    next_ = {};
}

void Packet::next_is_at(Next::Kind kind, std::size_t offset, bool given) {
    next_ = given ? Next{} : Next{kind, offset};
}

Packet& Packet::eth(const Eth& h) {
    follow(type_teb, 143);
    const std::size_t at = append(14);
    for (std::size_t i = 0; i < 6; i++) {
        data_[at + i] = static_cast<std::uint8_t>(h.dst >> (40 - 8 * i));
        data_[at + 6 + i] = static_cast<std::uint8_t>(h.src >> (40 - 8 * i));
    }
    put16(at + 12, h.type.value_or(0));
    next_is_at(Next::ether_type, at + 12, h.type.has_value());
    return *this;
}

Packet& Packet::vlan(std::uint16_t tci, std::uint16_t tpid) {
    follow(tpid, 0);
    const std::size_t at = append(4);
    put16(at, tci);
    next_is_at(Next::ether_type, at + 2, false);
    return *this;
}

Packet& Packet::ipv4(const Ipv4& h) {
    follow(type_ipv4, proto_ipip);
    const std::size_t at = append(20);
    append(h.options, 1);
    const unsigned ihl = h.ihl.value_or(static_cast<std::uint8_t>(5 + h.options / 4));
    data_[at] = static_cast<std::uint8_t>(h.version << 4 | (ihl & 15));
    put16(at + 2, h.tot_len.value_or(0));
    put16(at + 4, 0x1234);
    put16(at + 6, (h.more_fragments ? 0x2000U : 0U) | h.fragment_offset);
    data_[at + 8] = 64;
    data_[at + 9] = h.protocol.value_or(0);
    put_address(at + 12, AF_INET, h.src);
    put_address(at + 16, AF_INET, h.dst);
    layers_.push_back({Layer::ipv4, at, h.tot_len.has_value()});
    next_is_at(Next::protocol, at + 9, h.protocol.has_value());
    return *this;
}

Packet& Packet::ipv6(const Ipv6& h) {
    follow(type_ipv6, proto_ipv6);
    const std::size_t at = append(40);
    data_[at] = static_cast<std::uint8_t>(h.version << 4 | h.traffic_class >> 4);
    data_[at + 1] = static_cast<std::uint8_t>(h.traffic_class << 4);
    put16(at + 4, h.payload_len.value_or(0));
    data_[at + 6] = h.next.value_or(59);
    data_[at + 7] = 64;
    put_address(at + 8, AF_INET6, h.src);
    put_address(at + 24, AF_INET6, h.dst);
    layers_.push_back({Layer::ipv6, at, h.payload_len.has_value()});
    next_is_at(Next::protocol, at + 6, h.next.has_value());
    return *this;
}

Packet& Packet::extension(std::uint8_t protocol, std::uint8_t units) {
    follow(0, protocol);
    const std::size_t at = append(8 + 8U * units);
    data_[at] = 59;
    data_[at + 1] = units;
    if (protocol != 135) { // one PadN option that fills the rest
        data_[at + 2] = 1;
        data_[at + 3] = static_cast<std::uint8_t>(4 + 8 * units);
    }
    next_is_at(Next::protocol, at, false);
    return *this;
}

Packet& Packet::routing(const Routing& h) {
    follow(0, proto_routing);
    const std::size_t at = append(8 + 8U * h.units);
    data_[at] = h.next.value_or(59);
    data_[at + 1] = h.units;
    data_[at + 2] = h.type;
    data_[at + 3] = h.segments_left;
    next_is_at(Next::protocol, at, h.next.has_value());
    return *this;
}

Packet& Packet::fragment(const Fragment& h) {
    follow(0, proto_fragment);
    const std::size_t at = append(8);
    data_[at] = 59;
    put16(at + 2, static_cast<unsigned>(h.offset) << 3 | h.more);
    put16(at + 6, 0x1234);
    next_is_at(Next::protocol, at, false);
    return *this;
}

Packet& Packet::authentication(std::uint8_t units) {
    follow(0, proto_ah);
    const std::size_t at = append(8 + 4U * units);
    data_[at] = 59;
    data_[at + 1] = units;
    next_is_at(Next::protocol, at, false);
    return *this;
}

Packet& Packet::tcp(const Tcp& h) {
    follow(0, proto_tcp);
    const std::size_t at = append(20);
    append(h.options, 1);
    put16(at, h.sport);
    put16(at + 2, h.dport);
    put16(at + 4, 0x0102);
    data_[at + 12] =
        static_cast<std::uint8_t>(h.doff.value_or(static_cast<std::uint8_t>(5 + h.options / 4)) << 4);
    data_[at + 13] = h.flags;
    put16(at + 14, 0xfaf0);
    layers_.push_back({Layer::tcp, at, false});
    return *this;
}

Packet& Packet::udp(const Ports& h) {
    follow(0, proto_udp);
    const std::size_t at = append(8);
    put16(at, h.sport);
    put16(at + 2, h.dport);
    layers_.push_back({Layer::udp, at, false});
    return *this;
}

Packet& Packet::icmp() {
    const bool v6 = !layers_.empty() && layers_.back().kind == Layer::ipv6;
    follow(0, v6 ? proto_icmpv6 : proto_icmp);
    const std::size_t at = append(8);
    data_[at] = v6 ? 128 : 8;
    layers_.push_back({Layer::icmp, at, false});
    return *this;
}

Packet& Packet::gre() {
    follow(0, proto_gre);
    const std::size_t at = append(4);
    next_is_at(Next::ether_type, at + 2, false);
    return *this;
}

Packet& Packet::arp() {
    follow(type_arp, 0);
    const std::size_t at = append(28);
    put16(at, 1);
    put16(at + 2, type_ipv4);
    data_[at + 4] = 6;
    data_[at + 5] = 4;
    put16(at + 6, 1);
    put_address(at + 14, AF_INET, client4);
    put_address(at + 24, AF_INET, server4);
    return *this;
}

Packet& Packet::other(std::uint8_t protocol) {
    follow(0, protocol);
    return *this;
}

Packet& Packet::payload(std::size_t length) {
    for (std::size_t i = 0; i < length; i++)
        data_.push_back(static_cast<std::uint8_t>(i * 7 + 3));
    return *this;
}

Packet& Packet::truncate(std::size_t length) {
    length_ = length;
    return *this;
}

Packet& Packet::pad(std::size_t length) {
    padding_ = length;
    return *this;
}

Packet& Packet::set(std::size_t offset, std::uint8_t value) {
    edits_.push_back({offset, value});
    return *this;
}

Bytes Packet::bytes() const {
    Bytes out = data_;
    for (const Layer& l : layers_) {
        if (l.kind == Layer::ipv4 && !l.length_given)
            store16(out, l.offset + 2, out.size() - l.offset);
        if (l.kind == Layer::ipv6 && !l.length_given)
            store16(out, l.offset + 4, out.size() - l.offset - 40);
        if (l.kind == Layer::udp)
            store16(out, l.offset + 4, out.size() - l.offset);
    }
    // Inner checksums first: an outer one may cover them.
    for (std::size_t i = layers_.size(); i-- > 0;) {
        const Layer& l = layers_[i];
        if (l.kind == Layer::ipv4) {
            const std::size_t end = std::min(out.size(), l.offset + (out[l.offset] & 15U) * 4);
            store16(out, l.offset + 10, fold(sum16(out, l.offset, end, 0)));
        } else if (l.kind != Layer::ipv6) {
            const std::size_t field = l.offset + (l.kind == Layer::tcp   ? 16U
                                                  : l.kind == Layer::udp ? 6U
                                                                         : 2U);
            std::uint32_t pseudo = 0;
            if (i > 0 && layers_[i - 1].kind == Layer::ipv6)
                pseudo = sum16(out, layers_[i - 1].offset + 8, layers_[i - 1].offset + 40, 0);
            else if (i > 0 && l.kind != Layer::icmp)
                pseudo = sum16(out, layers_[i - 1].offset + 12, layers_[i - 1].offset + 20, 0);
            const bool v4_icmp = l.kind == Layer::icmp && pseudo == 0;
            if (!v4_icmp)
                pseudo += static_cast<std::uint32_t>(out.size() - l.offset) +
                          (l.kind == Layer::tcp   ? proto_tcp
                           : l.kind == Layer::udp ? proto_udp
                                                  : proto_icmpv6);
            store16(out, field, fold(sum16(out, l.offset, out.size(), pseudo)));
        }
    }
    out.resize(out.size() + padding_);
    for (const Edit& e : edits_)
        out.at(e.offset) = e.value;
    if (length_)
        out.resize(*length_);
    return out;
}

} // namespace syngate::prog
