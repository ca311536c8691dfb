// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/frame.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <optional>

namespace syngate {
namespace {

constexpr std::size_t ethernet_header = 14;
constexpr std::size_t addresses_len = 12;
constexpr std::size_t checksum_offset = 16; // in the TCP header

std::uint16_t load16(std::span<const std::uint8_t> bytes, std::size_t at) {
    return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

// Sum of big-endian 16-bit words, an odd last byte padded with zero (RFC 1071), not yet folded.
std::uint32_t sum_words(std::span<const std::uint8_t> bytes, std::uint32_t sum = 0) {
    std::size_t i = 0;
    for (; i + 1 < bytes.size(); i += 2)
        sum += load16(bytes, i);
    if (i < bytes.size())
        sum += static_cast<std::uint32_t>(bytes[i] << 8);
    return sum;
}

std::uint16_t fold(std::uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(sum);
}

struct Segment {
    std::span<std::uint8_t> tcp; // header and data
    std::uint32_t pseudo_sum = 0;
};

// Empty for anything but a whole (unfragmented) TCP segment.
std::optional<Segment> find_ipv4_segment(std::span<std::uint8_t> ip) {
    if (ip.size() < 20)
        return {};
    const std::size_t header = (ip[0] & 0x0fU) * 4U;
    const std::size_t total = load16(ip, 2);
    const bool fragment = (load16(ip, 6) & 0x3fff) != 0;
    if (fragment || ip[9] != IPPROTO_TCP || total < header + 20 || total > ip.size())
        return {};
    const auto tcp = ip.subspan(header, total - header);
    const auto pseudo = sum_words(ip.subspan(12, 8), IPPROTO_TCP + static_cast<std::uint32_t>(tcp.size()));
    return Segment{tcp, pseudo};
}

std::optional<Segment> find_ipv6_segment(std::span<std::uint8_t> ip) {
    if (ip.size() < 40)
        return {};
    const std::size_t total = 40U + load16(ip, 4);
    if (total > ip.size())
        return {};
    std::uint8_t next = ip[6];
    std::size_t at = 40;
    while (next != IPPROTO_TCP) {
        if (at + 8 > total || next == IPPROTO_FRAGMENT)
            return {};
        const std::size_t length = next == IPPROTO_AH ? (ip[at + 1] + 2U) * 4U : (ip[at + 1] + 1U) * 8U;
        next = ip[at];
        at += length;
    }
    if (at + 20 > total)
        return {};
    const auto tcp = ip.subspan(at, total - at);
    const auto pseudo = sum_words(ip.subspan(8, 32), IPPROTO_TCP + static_cast<std::uint32_t>(tcp.size()));
    return Segment{tcp, pseudo};
}

std::optional<Segment> find_segment(std::span<std::uint8_t> frame) {
    std::size_t at = addresses_len;
    for (;;) {
        if (frame.size() < at + 2)
            return {};
        const std::uint16_t protocol = load16(frame, at);
        at += 2;
        if (protocol == 0x8100 || protocol == 0x88a8)
            at += 2;
        else if (protocol == 0x0800)
            return find_ipv4_segment(frame.subspan(at));
        else if (protocol == 0x86dd)
            return find_ipv6_segment(frame.subspan(at));
        else
            return {};
    }
}

} // namespace

Checksum complete_checksum(std::span<std::uint8_t> frame) {
    const auto segment = find_segment(frame);
    if (!segment)
        return Checksum::whole;
    const auto tcp = segment->tcp;
    if (fold(sum_words(tcp, segment->pseudo_sum)) == 0xffff)
        return Checksum::whole;
    // What CHECKSUM_PARTIAL leaves in the field: the pseudo header's folded sum, not inverted.
    if (load16(tcp, checksum_offset) != fold(segment->pseudo_sum))
        return Checksum::wrong;
    const auto sum = static_cast<std::uint16_t>(~fold(sum_words(tcp)));
    tcp[checksum_offset] = static_cast<std::uint8_t>(sum >> 8);
    tcp[checksum_offset + 1] = static_cast<std::uint8_t>(sum & 0xff);
    return Checksum::completed;
}

std::vector<std::uint8_t> rebuild_frame(const syngate_parked& head, std::span<const std::uint8_t> frame) {
    std::vector<std::uint8_t> whole;
    whole.reserve(frame.size() + ethernet_header + 4);
    if (!head.ethernet) {
        whole.assign(addresses_len, 0);
        const bool ipv6 = !frame.empty() && frame[0] >> 4 == 6;
        whole.push_back(ipv6 ? 0x86 : 0x08);
        whole.push_back(ipv6 ? 0xdd : 0x00);
        whole.insert(whole.end(), frame.begin(), frame.end());
        return whole;
    }
    whole.assign(frame.begin(), frame.end());
    if (head.vlan_proto != 0 && whole.size() >= addresses_len) {
        std::uint8_t tag[4];
        const std::uint16_t tci = htons(head.vlan_tci);
        std::memcpy(tag, &head.vlan_proto, 2);
        std::memcpy(tag + 2, &tci, 2);
        whole.insert(whole.begin() + addresses_len, tag, tag + sizeof(tag));
    }
    return whole;
}

} // namespace syngate
