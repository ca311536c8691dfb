// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/gate_fixture.hpp"

#include <functional>
#include <string>

namespace syngate::prog {

class Ipv6Gate : public GateTest {
protected:
    static Packet ip() { return link().ipv6(); }

    struct Extension {
        std::string name;
        std::function<void(Packet&)> add;
    };
    // Each in two lengths where it has one.
    static std::vector<Extension> extensions() {
        return {{"hop-by-hop", [](Packet& p) { p.hop_by_hop(); }},
                {"hop-by-hop, long", [](Packet& p) { p.hop_by_hop(3); }},
                {"destination options", [](Packet& p) { p.dest_options(); }},
                {"destination options, long", [](Packet& p) { p.dest_options(10); }},
                {"routing", [](Packet& p) { p.routing(); }},
                {"fragment, first", [](Packet& p) { p.fragment({.more = true}); }},
                {"fragment, only", [](Packet& p) { p.fragment(); }},
                {"authentication", [](Packet& p) { p.authentication(); }},
                {"authentication, short", [](Packet& p) { p.authentication(0); }},
                {"mobility", [](Packet& p) { p.mobility(2); }}};
    }
};
SYNGATE_EVERY_HOOK(Ipv6Gate);

TEST_P(Ipv6Gate, ActsOnAPlainSyn) {
    EXPECT_EQ(verdict(ip().tcp()), SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(ip().tcp({.options = 40}).payload(9)), SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(ip().tcp().pad(7)), SYNGATE_REASON_dropped);
}

TEST_P(Ipv6Gate, PassesAVersionThatIsNotSix) {
    for (const std::uint8_t version : List8{0, 4, 5, 7, 15})
        EXPECT_EQ(verdict(link().ipv6({.version = version}).tcp()), SYNGATE_REASON_malformed) << int{version};
}

TEST_P(Ipv6Gate, PassesALengthThatDoesNotHoldTheHeaders) {
    for (std::uint16_t length = 0; length < 20; length++)
        EXPECT_EQ(verdict(link().ipv6({.payload_len = length}).tcp()), SYNGATE_REASON_truncated) << length;
    EXPECT_EQ(verdict(link().ipv6({.payload_len = 20}).tcp()), SYNGATE_REASON_dropped);
    for (const std::uint16_t length : List16{21, 100, 65535})
        EXPECT_EQ(verdict(link().ipv6({.payload_len = length}).tcp()), SYNGATE_REASON_truncated) << length;
}

TEST_P(Ipv6Gate, ActsBehindEachExtensionHeader) {
    for (const Extension& e : extensions()) {
        Packet p = ip();
        e.add(p);
        EXPECT_EQ(verdict(p.tcp({.options = 20})), SYNGATE_REASON_dropped) << e.name;
    }
}

TEST_P(Ipv6Gate, ActsBehindEachPairOfExtensionHeaders) {
    for (const Extension& first : extensions())
        for (const Extension& second : extensions()) {
            Packet p = ip();
            first.add(p);
            second.add(p);
            EXPECT_EQ(verdict(p.tcp()), SYNGATE_REASON_dropped) << first.name << ", " << second.name;
        }
}

TEST_P(Ipv6Gate, ActsBehindEightExtensionHeadersAndPassesNine) {
    Packet p = ip();
    for (int i = 1; i <= 8; i++) {
        p.dest_options();
        EXPECT_EQ(verdict(Packet(p).tcp()), SYNGATE_REASON_dropped) << i;
    }
    EXPECT_EQ(verdict(p.dest_options().tcp()), SYNGATE_REASON_malformed);
    EXPECT_EQ(verdict(p.dest_options().tcp()), SYNGATE_REASON_malformed);
}

TEST_P(Ipv6Gate, PassesWhatIsOnlyRoutedThroughThisHost) {
    for (unsigned left = 1; left < 256; left++)
        EXPECT_EQ(verdict(ip().routing({.segments_left = static_cast<std::uint8_t>(left)}).tcp()),
                  SYNGATE_REASON_not_local)
            << left;
    EXPECT_EQ(verdict(ip().hop_by_hop().routing({.segments_left = 1}).tcp()), SYNGATE_REASON_not_local);
    for (const std::uint8_t type : List8{0, 2, 3, 4, 253})
        EXPECT_EQ(verdict(ip().routing({.type = type}).tcp()), SYNGATE_REASON_dropped) << int{type};
}

TEST_P(Ipv6Gate, PassesLaterFragmentsThatLookLikeASyn) {
    for (const std::uint16_t offset : List16{1, 2, 181, 0x1fff})
        for (const bool more : {false, true}) {
            EXPECT_EQ(verdict(ip().fragment({.offset = offset, .more = more}).tcp()),
                      SYNGATE_REASON_later_fragment)
                << offset;
            EXPECT_EQ(verdict(ip().hop_by_hop().fragment({.offset = offset, .more = more}).tcp()),
                      SYNGATE_REASON_later_fragment)
                << offset;
        }
}

TEST_P(Ipv6Gate, PassesExtensionHeadersThatGoOnBehindTheDatagram) {
    const std::size_t header = link_length() + 40;
    for (unsigned units = 1; units < 256; units++)
        EXPECT_EQ(verdict(ip().dest_options().tcp().set(header + 1, static_cast<std::uint8_t>(units))),
                  SYNGATE_REASON_truncated)
            << units;
    // Within the frame, but behind the datagram's end.
    EXPECT_EQ(verdict(link().ipv6({.payload_len = 8}).dest_options().tcp()), SYNGATE_REASON_truncated);
}

TEST_P(Ipv6Gate, PassesOtherProtocolsToTheSamePort) {
    EXPECT_EQ(verdict(ip().udp().payload(20)), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(ip().icmp().payload(20)), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(ip().gre().ipv6().tcp()), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(ip().ipv6().tcp()), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(ip().ipv4().tcp()), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(ip().dest_options().udp().payload(20)), SYNGATE_REASON_not_tcp);
    EXPECT_EQ(verdict(ip().other(59).pad(ethernet() ? 0 : 14)),
              SYNGATE_REASON_not_tcp); // "no next header", and nothing follows
    for (unsigned next = 0; next < 256; next++) {
        const bool extension =
            next == 0 || next == 43 || next == 44 || next == 51 || next == 60 || next == 135;
        if (extension || next == 6)
            continue;
        EXPECT_EQ(verdict(link().ipv6({.next = static_cast<std::uint8_t>(next)}).tcp()),
                  SYNGATE_REASON_not_tcp)
            << next;
    }
}

} // namespace syngate::prog
