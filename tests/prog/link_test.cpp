// SPDX-License-Identifier: GPL-2.0-or-later
// What stands before the IP header, and frames that end anywhere.
#include "prog/gate_fixture.hpp"

namespace syngate::prog {

class LinkLayer : public GateTest {};
SYNGATE_ETHERNET_HOOKS(LinkLayer);

TEST_P(LinkLayer, ActsBehindOneAndTwoVlanTags) {
    for (const std::uint16_t outer : List16{0x8100, 0x88a8}) {
        EXPECT_EQ(verdict(link().vlan(100, outer).ipv4().tcp()), SYNGATE_REASON_dropped);
        EXPECT_EQ(verdict(link().vlan(0xe064, outer).ipv6().tcp()), SYNGATE_REASON_dropped);
        for (const std::uint16_t inner : List16{0x8100, 0x88a8}) {
            EXPECT_EQ(verdict(link().vlan(100, outer).vlan(200, inner).ipv4().tcp()), SYNGATE_REASON_dropped);
            EXPECT_EQ(verdict(link().vlan(100, outer).vlan(200, inner).ipv6().fragment().tcp()),
                      SYNGATE_REASON_dropped);
        }
    }
}

TEST_P(LinkLayer, PassesThreeVlanTags) {
    EXPECT_EQ(verdict(link().vlan(1, 0x88a8).vlan(2).vlan(3).ipv4().tcp()), SYNGATE_REASON_not_ip);
    EXPECT_EQ(verdict(link().vlan(1).vlan(2).vlan(3).ipv6().tcp()), SYNGATE_REASON_not_ip);
}

TEST_P(LinkLayer, PassesWhatIsNotIp) {
    EXPECT_EQ(verdict(link().arp()), SYNGATE_REASON_not_ip);
    EXPECT_EQ(verdict(link().vlan(100).arp()), SYNGATE_REASON_not_ip);
    for (const std::uint16_t type : List16{0x0000, 0x0026, 0x0801, 0x8864, 0x8847, 0x88cc, 0x9100, 0xffff})
        EXPECT_EQ(verdict(Packet().eth({.type = type}).ipv4().tcp()), SYNGATE_REASON_not_ip) << type;
}

TEST_P(LinkLayer, TheEtherTypeAndTheVersionMustAgree) {
    EXPECT_EQ(verdict(Packet().eth({.type = 0x86dd}).ipv4().tcp().payload(40)), SYNGATE_REASON_malformed);
    EXPECT_EQ(verdict(Packet().eth({.type = 0x0800}).ipv6().tcp()), SYNGATE_REASON_malformed);
}

class AnyLink : public GateTest {};
SYNGATE_EVERY_HOOK(AnyLink);

TEST_P(AnyLink, PassesAFrameThatEndsAtAnyByte) {
    std::vector<std::pair<const char*, Packet>> whole = {
        {"ipv4", link().ipv4().tcp({.options = 20})},
        {"ipv4 with options", link().ipv4({.options = 40}).tcp({.options = 40}).payload(3)},
        {"ipv6", link().ipv6().tcp({.options = 20})},
        {"ipv6 with extensions",
         link().ipv6().hop_by_hop(1).dest_options().routing().fragment().authentication().tcp()}};
    if (ethernet()) {
        whole.emplace_back("tagged", link().vlan(1, 0x88a8).vlan(2).ipv4().tcp());
        whole.emplace_back("tagged ipv6", link().vlan(1).ipv6().mobility(2).tcp());
    }
    for (const auto& [name, packet] : whole) {
        const Bytes all = packet.bytes();
        for (std::size_t n = shortest_frame(hook(), all); n < all.size(); n++)
            EXPECT_EQ(verdict(Bytes(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n))),
                      SYNGATE_REASON_truncated)
                << name << " cut to " << n;
        EXPECT_EQ(verdict(all), SYNGATE_REASON_dropped) << name;
    }
}

// A frame for someone else is none of ours, whatever it carries and even while the gate is open. At
// XDP the kernel has not looked yet: the frame is judged by its address, and the stack drops it later.
class AnotherHost : public GateTest {
protected:
    static constexpr std::uint64_t somebody = 0x02'00'00'00'00'77, multicast = 0x01'00'5e'00'00'01,
                                   broadcast = 0xff'ff'ff'ff'ff'ff;
    Packet to(std::uint64_t mac) { return Packet().eth({.dst = mac}).ipv4().tcp(); }
};
SYNGATE_ETHERNET_HOOKS(AnotherHost);

TEST_P(AnotherHost, IsSeenByTheKernelsPacketType) {
    const bool tc = hook() == Hook::tc;
    EXPECT_EQ(verdict(to(somebody)), tc ? SYNGATE_REASON_other_host : SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(to(server_mac)), SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(to(multicast)), SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(to(broadcast)), SYNGATE_REASON_dropped);
}

TEST_P(AnotherHost, IsCountedWhileTheGateIsOpen) {
    gate().open();
    EXPECT_EQ(verdict(to(somebody)),
              hook() == Hook::tc ? SYNGATE_REASON_other_host : SYNGATE_REASON_gate_open);
}

} // namespace syngate::prog
