// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/frame.hpp"

#include <algorithm>
#include <gtest/gtest.h>

namespace syngate {
namespace {

using Bytes = std::vector<std::uint8_t>;

// Ethernet, IPv4 10.0.0.2 to 10.0.0.1, a SYN from 40000 to 80; the checksum field as given.
Bytes ipv4_syn(std::uint16_t checksum, Bytes payload = {}) {
    Bytes frame = {2,
                   0,
                   0,
                   0,
                   0,
                   1,
                   2,
                   0,
                   0,
                   0,
                   0,
                   2,
                   0x08,
                   0x00,
                   0x45,
                   0,
                   0,
                   static_cast<std::uint8_t>(40 + payload.size()),
                   0,
                   0,
                   0x40,
                   0,
                   64,
                   6,
                   0x26,
                   0xce,
                   10,
                   0,
                   0,
                   2,
                   10,
                   0,
                   0,
                   1,
                   0x9c,
                   0x40,
                   0,
                   80,
                   0,
                   0,
                   0,
                   1,
                   0,
                   0,
                   0,
                   0,
                   0x50,
                   0x02,
                   0xff,
                   0xff,
                   static_cast<std::uint8_t>(checksum >> 8),
                   static_cast<std::uint8_t>(checksum & 0xff),
                   0,
                   0};
    for (const std::uint8_t byte : payload)
        frame.push_back(byte);
    return frame;
}

// The sum over the pseudo header: 0a00 + 0002 + 0a00 + 0001 + 0006 + 0014.
constexpr std::uint16_t pseudo = 0x141d;

std::uint16_t field(const Bytes& frame) {
    return static_cast<std::uint16_t>(frame[50] << 8 | frame[51]);
}

} // namespace

TEST(Frame, APartialChecksumIsCompletedOnceAndThenWhole) {
    Bytes frame = ipv4_syn(pseudo);
    EXPECT_EQ(complete_checksum(frame), Checksum::completed);
    // 0x141d + 0x9c40 + 0x0050 + 0x0001 + 0x5002 + 0xffff = 0x200af, folded 0x00b1, inverted 0xff4e.
    EXPECT_EQ(field(frame), 0xff4e);
    EXPECT_EQ(complete_checksum(frame), Checksum::whole);
}

TEST(Frame, OddPayloadIsPadded) {
    Bytes frame = ipv4_syn(0x1420, {'a', 'b', 'c'});
    EXPECT_EQ(complete_checksum(frame), Checksum::completed);
    EXPECT_EQ(complete_checksum(frame), Checksum::whole);
}

TEST(Frame, AWrongChecksumIsLeftAsItCame) {
    Bytes frame = ipv4_syn(0x1234);
    const Bytes before = frame;
    EXPECT_EQ(complete_checksum(frame), Checksum::wrong);
    EXPECT_EQ(frame, before);
}

TEST(Frame, AFirstFragmentAndATruncatedFrameAreLeftAsTheyCame) {
    Bytes fragment = ipv4_syn(pseudo);
    fragment[20] = 0x20; // more fragments
    const Bytes before = fragment;
    EXPECT_EQ(complete_checksum(fragment), Checksum::whole);
    EXPECT_EQ(fragment, before);
    for (std::size_t n = 0; n < before.size(); ++n) {
        Bytes cut(before.begin(), before.begin() + static_cast<std::ptrdiff_t>(n));
        EXPECT_EQ(complete_checksum(cut), Checksum::whole) << n;
    }
}

TEST(Frame, IPv6WithAnExtensionHeaderIsCompleted) {
    Bytes frame = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 28, 60, 64};
    frame.insert(frame.end(), {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2});
    frame.insert(frame.end(), {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});
    frame.insert(frame.end(), {6, 0, 1, 4, 0, 0, 0, 0}); // destination options, padding
    // The pseudo header: fd00+2+fd00+1+6+14 = 1_fa1d, folded fa1e.
    frame.insert(frame.end(),
                 {0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0xfa, 0x1e, 0, 0});
    EXPECT_EQ(complete_checksum(frame), Checksum::completed);
    EXPECT_EQ(complete_checksum(frame), Checksum::whole);
}

TEST(Frame, AVlanTagThatTheDeviceTookOutIsPutBack) {
    const Bytes frame = ipv4_syn(pseudo);
    syngate_parked head{};
    head.ethernet = 1;
    head.vlan_proto = 0x0081; // 0x8100 in network byte order, on the little-endian machines we run on
    head.vlan_tci = 0x2064;
    const Bytes whole = rebuild_frame(head, frame);
    ASSERT_EQ(whole.size(), frame.size() + 4);
    EXPECT_EQ(Bytes(whole.begin() + 12, whole.begin() + 18), (Bytes{0x81, 0x00, 0x20, 0x64, 0x08, 0x00}));
    EXPECT_TRUE(std::equal(frame.begin() + 12, frame.end(), whole.begin() + 16));
}

TEST(Frame, WithoutALinkLayerOneIsMade) {
    const Bytes ethernet = ipv4_syn(pseudo);
    const Bytes ip(ethernet.begin() + 14, ethernet.end());
    const Bytes whole = rebuild_frame(syngate_parked{}, ip);
    ASSERT_EQ(whole.size(), ip.size() + 14);
    EXPECT_EQ(Bytes(whole.begin(), whole.begin() + 14), (Bytes{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0}));
}

} // namespace syngate
