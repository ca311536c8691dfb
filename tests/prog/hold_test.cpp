// SPDX-License-Identifier: GPL-2.0-or-later
// What is parked, and what is dropped instead.
#include "base/clock.hpp"
#include "prog/gate_fixture.hpp"
#include "prog/world.hpp"

namespace syngate::prog {

class Hold : public GateTest {
protected:
    static Packet syn(std::size_t payload = 0, std::uint16_t sport = 40000) {
        return link().ipv4().tcp({.sport = sport, .dport = 443, .options = 20}).payload(payload);
    }
    // A SYN whose frame is `length` bytes long.
    static Packet syn_of(std::size_t length) { return syn(length - syn().bytes().size()); }

    void expect_parked_whole(const Bytes& frame) {
        const auto before = to_ns(Clock::now());
        EXPECT_EQ(verdict(frame), SYNGATE_REASON_parked);
        const auto after = to_ns(Clock::now());
        const auto records = gate().consume();
        ASSERT_EQ(records.size(), 1U);
        const auto& [head, parked] = records[0];
        EXPECT_TRUE(parked == frame) << parked.size() << " bytes of " << frame.size();
        EXPECT_EQ(head.frame_len, frame.size());
        EXPECT_EQ(head.ifindex, index_of("v0"));
        EXPECT_EQ(head.generation, Gate::generation);
        EXPECT_EQ(head.ethernet, ethernet());
        EXPECT_EQ(head.vlan_tci, 0);
        EXPECT_EQ(head.vlan_proto, 0);
        EXPECT_GE(head.at_ns, before);
        EXPECT_LE(head.at_ns, after);
    }
};
SYNGATE_EVERY_HOOK(Hold);

TEST_P(Hold, ParksTheFrameByteForByte) {
    expect_parked_whole(syn().bytes());
    expect_parked_whole(syn().pad(6).bytes());
    expect_parked_whole(link().ipv4({.options = 40}).tcp({.dport = 443, .options = 40}).bytes());
    expect_parked_whole(link().ipv6().tcp({.dport = 443}).bytes());
    expect_parked_whole(link().ipv6().hop_by_hop().dest_options(4).tcp({.dport = 443}).bytes());
    if (ethernet())
        expect_parked_whole(link().vlan(0x2064, 0x88a8).vlan(200).ipv6().tcp({.dport = 443}).bytes());
}

TEST_P(Hold, ParksFastOpenDataWhole) {
    for (const std::size_t data : std::initializer_list<std::size_t>{1, 75, 536, 1000, 1400})
        expect_parked_whole(syn(data).bytes());
}

TEST_P(Hold, ParksTheLongestFrameAndDropsALongerOne) {
    for (const std::size_t length :
         std::initializer_list<std::size_t>{255, 256, 1023, 1024, 2047, 2048, 2049, SYNGATE_FRAME_MAX - 1})
        expect_parked_whole(syn_of(length).bytes());
    expect_parked_whole(syn_of(SYNGATE_FRAME_MAX).bytes());
    EXPECT_EQ(verdict(syn_of(SYNGATE_FRAME_MAX + 1)), SYNGATE_REASON_park_too_long);
    EXPECT_EQ(verdict(syn_of(3400)), SYNGATE_REASON_park_too_long);
    EXPECT_TRUE(gate().consume().empty());
}

TEST_P(Hold, NothingOfALongerFrameIsLeftInAShorterRecord) {
    expect_parked_whole(syn(1400).bytes());
    expect_parked_whole(syn().bytes());
}

TEST_P(Hold, DropsOnAnInterfaceThatCannotReplay) {
    gate().set_interface(index_of("v0"), false);
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_hold_unavailable);
    EXPECT_TRUE(gate().consume().empty());
}

TEST_P(Hold, DropsOnAnInterfaceThatNobodyDescribed) {
    EXPECT_EQ(verdict(ethernet()
                          ? Packet().eth({.dst = 0x02'00'00'00'01'01}).ipv4().tcp({.dport = 443}).bytes()
                          : syn().bytes(),
                      index_of("v1")),
              SYNGATE_REASON_hold_unavailable);
    EXPECT_TRUE(gate().consume().empty());
}

TEST_P(Hold, DropsWhereTheKernelCannotHold) {
    load({.can_hold = false});
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_hold_unavailable);
    EXPECT_EQ(verdict(link().ipv4().tcp()), SYNGATE_REASON_dropped);
    EXPECT_EQ(verdict(link().ipv4().tcp({.flags = ACK})), SYNGATE_REASON_not_syn);
}

TEST_P(Hold, AFullParkDropsAndKeepsWhatItHasInOrder) {
    load({.ring_bytes = 4096});
    std::vector<Bytes> parked;
    syngate_reason reason = SYNGATE_REASON_parked;
    for (std::uint16_t sport = 1000; sport < 1100; sport++) {
        const Bytes frame = syn(sport % 50, sport).bytes();
        reason = verdict(frame);
        if (reason != SYNGATE_REASON_parked)
            break;
        parked.push_back(frame);
    }
    EXPECT_EQ(reason, SYNGATE_REASON_park_full);
    EXPECT_EQ(verdict(syn(1400)), SYNGATE_REASON_park_full);
    EXPECT_GE(parked.size(), 20U);

    const auto records = gate().consume();
    ASSERT_EQ(records.size(), parked.size());
    for (std::size_t i = 0; i < parked.size(); i++) {
        EXPECT_TRUE(records[i].frame == parked[i]) << i;
        EXPECT_TRUE(i == 0 || records[i - 1].head.at_ns <= records[i].head.at_ns) << i;
    }
    expect_parked_whole(syn(1400).bytes()); // room again
}

TEST_P(Hold, ARingOfOnePageTakesTheLongestFrame) {
    load({.ring_bytes = 4096});
    for (int i = 0; i < 5; i++) {
        expect_parked_whole(syn_of(SYNGATE_FRAME_MAX).bytes());
        EXPECT_EQ(verdict(syn_of(SYNGATE_FRAME_MAX)), SYNGATE_REASON_parked);
        EXPECT_EQ(verdict(syn_of(SYNGATE_FRAME_MAX)), SYNGATE_REASON_park_full);
        EXPECT_EQ(gate().consume().size(), 1U);
    }
}

} // namespace syngate::prog
