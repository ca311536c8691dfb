// SPDX-License-Identifier: GPL-2.0-or-later
// Random mutations of good frames: the program and an independent parser agree on every one.
#include "prog/gate_fixture.hpp"
#include "prog/reference.hpp"

#include <random>

namespace syngate::prog {

class Property : public GateTest {
protected:
    static constexpr int mutations = 20'000;

    static bool is_ours(const Bytes& frame) {
        if (is_xdp(hook()))
            return is_ours_behind_ethernet(frame);
        if (is_for_another_host(frame))
            return false;
        if (hook() == Hook::tc)
            return is_ours_behind_ethernet(frame);
        return is_ours_without_link(frame, static_cast<std::uint16_t>(frame[12] << 8 | frame[13]));
    }

    static std::vector<Bytes> seeds() {
        std::vector<Bytes> all;
        for (const std::uint16_t port : List16{80, 443}) {
            const Tcp syn = {.dport = port, .options = 20}, plain = {.dport = port};
            std::vector<Packet> links = {link()};
            if (ethernet()) {
                links.push_back(link().vlan(100));
                links.push_back(link().vlan(100, 0x88a8).vlan(200));
            }
            for (const Packet& l : links)
                for (const Packet& p :
                     {Packet(l).ipv4().tcp(plain), Packet(l).ipv6().tcp(plain), Packet(l).ipv4().tcp(syn),
                      Packet(l).ipv4({.options = 8}).tcp(plain).payload(50),
                      Packet(l).ipv4({.more_fragments = true}).tcp(syn).pad(6), Packet(l).ipv6().tcp(syn),
                      Packet(l).ipv6().hop_by_hop().tcp(plain),
                      Packet(l).ipv6().routing().fragment().tcp(syn),
                      Packet(l).ipv6().authentication().dest_options(1).mobility().tcp(plain).payload(20),
                      Packet(l).ipv4().tcp({.dport = port, .flags = SYN | ACK}),
                      Packet(l).ipv6().tcp({.dport = port, .flags = ACK}).payload(100)})
                    all.push_back(p.bytes());
        }
        return all;
    }

    // Where a header is likely to stand rather than in the payload, and values that mean something.
    static void mutate(Bytes& frame, std::mt19937& random) {
        const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
        constexpr std::uint8_t telling[] = {0,  1,    2,    4,    5,    6,  8,  16, 17, 20,   40,  43,
                                            44, 0x50, 0x60, 0x45, 0x46, 51, 58, 59, 60, 0x81, 135, 255};
        const auto iterator = [&](std::size_t at) { return frame.begin() + static_cast<std::ptrdiff_t>(at); };
        const std::size_t at = below(std::min<std::size_t>(frame.size(), 140));
        switch (below(10)) {
        case 0:
        case 1:
        case 2:
            frame[at] ^= static_cast<std::uint8_t>(1U << below(8));
            break;
        case 3:
        case 4:
            frame[at] = static_cast<std::uint8_t>(below(256));
            break;
        case 5:
        case 6:
            frame[at] = telling[below(std::size(telling))];
            break;
        case 7:
            frame.resize(below(frame.size()) + 1);
            break;
        case 8:
            frame.insert(iterator(at), 1 + below(8), static_cast<std::uint8_t>(below(256)));
            break;
        default:
            frame.erase(iterator(at), iterator(std::min(frame.size(), at + 1 + below(8))));
        }
    }

    static std::string hex(const Bytes& frame) {
        std::string text;
        for (const std::uint8_t byte : frame)
            text += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
        return text;
    }
};
SYNGATE_EVERY_HOOK(Property);

TEST_P(Property, TheGateActsExactlyOnWhatAnIndependentParserCallsOurs) {
    constexpr unsigned seed = 20260101;
    std::mt19937 random(seed);
    const std::vector<Bytes> good = seeds();
    int acted = 0;
    for (int i = 0; i < mutations && !HasFailure(); i++) {
        Bytes frame = good[random() % good.size()];
        for (unsigned n = static_cast<unsigned>(random() % 4); n > 0; n--)
            mutate(frame, random);
        frame.resize(std::max(frame.size(), std::size_t{15}));
        frame.resize(std::max(frame.size(), shortest_frame(hook(), frame)));

        // A frame meets what is remembered of the SYN that was dropped before it.
        EXPECT_EQ(verdict(i % 2 == 0 ? link().ipv4().tcp() : link().ipv6().tcp()), SYNGATE_REASON_dropped);
        const syngate_reason reason = verdict(frame);
        const bool acts = reason >= SYNGATE_REASON_dropped;
        EXPECT_EQ(acts, is_ours(frame))
            << reason_name(reason) << ", frame " << i << " of seed " << seed << ": " << hex(frame);
        acted += acts;
        const auto records = gate().consume();
        EXPECT_EQ(records.size(), reason == SYNGATE_REASON_parked ? 1U : 0U);
        EXPECT_TRUE(records.empty() || records[0].frame == frame);
    }
    // Both sides of the question were asked often.
    EXPECT_GT(acted, mutations / 5);
    EXPECT_LT(acted, mutations * 4 / 5);
}

} // namespace syngate::prog
