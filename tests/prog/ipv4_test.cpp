// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/gate_fixture.hpp"

namespace syngate::prog {

class Ipv4Gate : public GateTest {};
SYNGATE_EVERY_HOOK(Ipv4Gate);

TEST_P(Ipv4Gate, ActsBehindEveryHeaderLength) {
    for (std::size_t options = 0; options <= 40; options += ethernet() ? 4 : 8)
        EXPECT_EQ(verdict(link().ipv4({.options = options}).tcp({.options = 20})), SYNGATE_REASON_dropped)
            << options;
}

TEST_P(Ipv4Gate, PassesAVersionThatIsNotFour) {
    for (const std::uint8_t version : List8{0, 3, 5, 6, 15})
        EXPECT_EQ(verdict(link().ipv4({.version = version}).tcp()), SYNGATE_REASON_malformed) << int{version};
}

TEST_P(Ipv4Gate, PassesAHeaderThatIsTooShort) {
    for (std::uint8_t ihl = ethernet() ? 0 : 1; ihl < 5; ihl = static_cast<std::uint8_t>(ihl + 2))
        EXPECT_EQ(verdict(link().ipv4({.ihl = ihl}).tcp()), SYNGATE_REASON_malformed) << int{ihl};
}

TEST_P(Ipv4Gate, PassesAHeaderThatGoesOnBehindTheDatagram) {
    EXPECT_EQ(verdict(link().ipv4({.ihl = 15}).tcp()), SYNGATE_REASON_malformed);
}

TEST_P(Ipv4Gate, PassesALengthThatDoesNotHoldTheHeaders) {
    for (std::uint16_t length = 0; length < 20; length++)
        EXPECT_EQ(verdict(link().ipv4({.tot_len = length}).tcp()), SYNGATE_REASON_malformed) << length;
    // The bytes of a SYN are there, but behind the datagram's end.
    for (std::uint16_t length = 20; length < 40; length++)
        EXPECT_EQ(verdict(link().ipv4({.tot_len = length}).tcp()), SYNGATE_REASON_truncated) << length;
    EXPECT_EQ(verdict(link().ipv4({.tot_len = 40}).tcp()), SYNGATE_REASON_dropped);
}

TEST_P(Ipv4Gate, PassesALengthBeyondTheFrame) {
    for (const std::uint16_t length : List16{41, 42, 1000, 65535})
        EXPECT_EQ(verdict(link().ipv4({.tot_len = length}).tcp()), SYNGATE_REASON_truncated) << length;
}

TEST_P(Ipv4Gate, ActsOnAPaddedFrame) {
    EXPECT_EQ(verdict(link().ipv4().tcp().pad(6)), SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(link().ipv4().tcp().pad(300)), SYNGATE_REASON_dropped);
}

TEST_P(Ipv4Gate, ActsOnAFirstFragment) {
    EXPECT_EQ(verdict(link().ipv4({.more_fragments = true}).tcp().payload(16)), SYNGATE_REASON_dropped);
}

TEST_P(Ipv4Gate, PassesAFirstFragmentThatEndsWithinItsTcpHeader) {
    EXPECT_EQ(verdict(link().ipv4({.more_fragments = true, .protocol = 6}).payload(8).pad(6)),
              SYNGATE_REASON_truncated);
}

TEST_P(Ipv4Gate, PassesLaterFragmentsThatLookLikeASyn) {
    for (const std::uint16_t offset : List16{1, 2, 185, 0x1000, 0x1fff})
        for (const bool more : {false, true})
            EXPECT_EQ(verdict(link().ipv4({.fragment_offset = offset, .more_fragments = more}).tcp()),
                      SYNGATE_REASON_later_fragment)
                << offset;
}

TEST_P(Ipv4Gate, DontFragmentIsNoFragment) {
    EXPECT_EQ(verdict(link().ipv4().tcp().set(link_length() + 6, 0x40)), SYNGATE_REASON_dropped);
}

TEST_P(Ipv4Gate, PassesOtherProtocolsToTheSamePort) {
    EXPECT_EQ(verdict(link().ipv4().udp().payload(20)), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(link().ipv4().icmp().payload(20)), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(link().ipv4().gre().ipv4().tcp()), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(link().ipv4().gre().eth().ipv4().tcp()), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(link().ipv4().ipv4().tcp()), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(link().ipv4().ipv6().tcp()), SYNGATE_REASON_not_tcp);
    for (unsigned protocol = 0; protocol < 256; protocol++) {
        if (protocol == 6)
            continue;
        EXPECT_EQ(verdict(link().ipv4({.protocol = static_cast<std::uint8_t>(protocol)}).tcp()),
                  SYNGATE_REASON_not_tcp)
            << protocol;
    }
}

} // namespace syngate::prog
