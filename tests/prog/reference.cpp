// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/reference.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace syngate::prog {

namespace {

// Bytes that are taken from the front; once too many were asked for, `bad` stays set.
struct Reader {
    std::span<const std::uint8_t> rest;
    bool bad = false;

    std::span<const std::uint8_t> take(std::size_t n) {
        static constexpr std::array<std::uint8_t, 4096> zeros = {};
        if (bad || n > rest.size()) {
            bad = true;
            return std::span(zeros).first(n);
        }
        const auto taken = rest.first(n);
        rest = rest.subspan(n);
        return taken;
    }
};

unsigned be16(std::span<const std::uint8_t> bytes, std::size_t at) {
    return bytes[at] * 256U + bytes[at + 1];
}

bool is_syn_to_gated_port(Reader segment) {
    const auto header = segment.take(20);
    const unsigned length = header[12] / 16U * 4U;
    if (segment.bad || length < 20)
        return false;
    segment.take(length - 20);
    const bool syn = header[13] & 0x02, ack = header[13] & 0x10;
    const unsigned port = be16(header, 2);
    return !segment.bad && syn && !ack && (port == 80 || port == 443);
}

bool is_ours_ipv4(Reader frame) {
    const Reader start = frame;
    const auto fixed = frame.take(20);
    const unsigned header_length = fixed[0] % 16U * 4U, total = be16(fixed, 2);
    if (frame.bad || fixed[0] / 16 != 4 || header_length < 20 || total < header_length)
        return false;
    Reader datagram = start;
    datagram.rest = datagram.take(total);
    datagram.take(header_length);
    constexpr std::array<std::uint8_t, 4> server = {10, 0, 0, 1};
    return !datagram.bad && fixed[9] == 6 && be16(fixed, 6) % 0x2000U == 0 &&
           std::ranges::equal(fixed.subspan(16, 4), server) && is_syn_to_gated_port(datagram);
}

bool is_ours_ipv6(Reader frame) {
    const auto fixed = frame.take(40);
    Reader body = frame;
    body.rest = body.take(be16(fixed, 4));
    constexpr std::array<std::uint8_t, 16> server = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    if (body.bad || fixed[0] / 16 != 6 || !std::ranges::equal(fixed.subspan(24, 16), server))
        return false;

    unsigned next = fixed[6];
    for (int extensions = 0; next != 6; extensions++) {
        if (extensions == 8)
            return false;
        Reader ahead = body;
        const auto peek = ahead.take(4);
        std::size_t length = 8 + 8U * peek[1];
        if (next == 44)
            length = 8;
        else if (next == 51)
            length = 8 + 4U * peek[1];
        else if (next == 43 && peek[3] != 0)
            return false;
        else if (next != 0 && next != 43 && next != 60 && next != 135)
            return false;
        const auto header = body.take(length);
        if (body.bad || (next == 44 && be16(header, 2) / 8 != 0))
            return false;
        next = header[0];
    }
    return is_syn_to_gated_port(body);
}

bool is_ours_ip(Reader frame, unsigned type) {
    return type == 0x0800 ? is_ours_ipv4(frame) : type == 0x86dd && is_ours_ipv6(frame);
}

} // namespace

bool is_ours_behind_ethernet(const Bytes& bytes) {
    Reader frame{bytes};
    unsigned type = be16(frame.take(14), 12);
    for (int tags = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); tags++)
        type = be16(frame.take(4), 2);
    return !frame.bad && is_ours_ip(frame, type);
}

bool is_ours_without_link(const Bytes& datagram, std::uint16_t ether_type) {
    return is_ours_ip(Reader{datagram}, ether_type);
}

bool is_for_another_host(const Bytes& frame) {
    constexpr std::array<std::uint8_t, 6> server = {2, 0, 0, 0, 0, 1};
    return frame[0] % 2 == 0 && !std::ranges::equal(std::span(frame).first(6), server);
}

} // namespace syngate::prog
