// SPDX-License-Identifier: GPL-2.0-or-later
// Which segments, and which ports.
#include "prog/gate_fixture.hpp"

namespace syngate::prog {

class Segment : public GateTest {};
SYNGATE_EVERY_HOOK(Segment);

TEST_P(Segment, ActsOnASynWithoutAckAndOnNoOtherOfAllFlags) {
    for (unsigned i = 0; i < 256; i++) {
        const auto flags = static_cast<std::uint8_t>(i);
        const bool syn = (flags & SYN) && !(flags & ACK);
        const auto expected = syn ? SYNGATE_REASON_dropped : SYNGATE_REASON_not_syn;
        EXPECT_EQ(verdict(link().ipv4().tcp({.flags = flags})), expected) << i;
        EXPECT_EQ(verdict(link().ipv6().tcp({.flags = flags})), expected) << i;
    }
}

TEST_P(Segment, TheReservedBitsDoNotMatter) {
    for (const std::uint8_t bits : List8{1, 2, 4, 8, 15})
        EXPECT_EQ(verdict(link().ipv4().tcp().set(link_length() + 20 + 12, 0x50 | bits)),
                  SYNGATE_REASON_dropped);
}

TEST_P(Segment, PassesAHeaderThatIsTooShort) {
    for (std::uint8_t doff = 0; doff < 5; doff++) {
        EXPECT_EQ(verdict(link().ipv4().tcp({.doff = doff})), SYNGATE_REASON_malformed) << int{doff};
        EXPECT_EQ(verdict(link().ipv6().tcp({.doff = doff})), SYNGATE_REASON_malformed) << int{doff};
    }
}

TEST_P(Segment, PassesAHeaderThatGoesOnBehindTheDatagram) {
    for (std::uint8_t doff = 6; doff < 16; doff++) {
        EXPECT_EQ(verdict(link().ipv4().tcp({.doff = doff})), SYNGATE_REASON_truncated) << int{doff};
        EXPECT_EQ(verdict(link().ipv6().tcp({.doff = doff})), SYNGATE_REASON_truncated) << int{doff};
        EXPECT_EQ(verdict(link().ipv4().tcp({.doff = doff}).pad(64)), SYNGATE_REASON_truncated) << int{doff};
        EXPECT_EQ(verdict(link().ipv6().tcp({.doff = doff}).pad(64)), SYNGATE_REASON_truncated) << int{doff};
    }
}

TEST_P(Segment, ActsOnEveryHeaderLengthThatFits) {
    for (std::size_t options = 0; options <= 40; options += 4)
        EXPECT_EQ(verdict(link().ipv6().tcp({.options = options})), SYNGATE_REASON_dropped) << options;
}

TEST_P(Segment, PassesAPortThatIsNotInTheMap) {
    for (const std::uint16_t port :
         List16{0, 1, 79, 81, 442, 8080, 0x5000 /* 80 with its bytes swapped */, 65535})
        EXPECT_EQ(verdict(link().ipv4().tcp({.dport = port})), SYNGATE_REASON_not_gated) << port;
}

TEST_P(Segment, LooksAtTheDestinationPortOnly) {
    EXPECT_EQ(verdict(link().ipv4().tcp({.sport = 80, .dport = 81})), SYNGATE_REASON_not_gated);
    EXPECT_EQ(verdict(link().ipv4().tcp({.sport = 80, .dport = 80})), SYNGATE_REASON_dropped);
}

TEST_P(Segment, PassesAPortOfAnotherWindow) {
    for (const std::uint32_t generation : {0U, Gate::generation - 1, Gate::generation + 1, ~0U}) {
        gate().set_port(80, SYNGATE_POLICY_DROP, generation);
        gate().set_port(443, SYNGATE_POLICY_HOLD, generation);
        EXPECT_EQ(verdict(link().ipv4().tcp()), SYNGATE_REASON_not_gated) << generation;
        EXPECT_EQ(verdict(link().ipv6().tcp({.dport = 443})), SYNGATE_REASON_not_gated) << generation;
    }
    gate().set_port(80, SYNGATE_POLICY_DROP);
    EXPECT_EQ(verdict(link().ipv4().tcp()), SYNGATE_REASON_dropped);
}

} // namespace syngate::prog
