// SPDX-License-Identifier: GPL-2.0-or-later
// The SYN that was dropped last is remembered, for a jiffy at most, and the next like it is dropped without
// asking again. That it takes no other frame for one like it, property_test.cpp shows.
#include "prog/gate_fixture.hpp"

namespace syngate::prog {

using namespace std::chrono_literals;

class Alike : public GateTest {
protected:
    static constexpr int tries = 1000; // each within a jiffy or not, as it happens

    static Packet syn(bool ipv6, std::uint16_t sport = 40000) {
        const Tcp tcp = {.sport = sport};
        return ipv6 ? link().ipv6().tcp(tcp) : link().ipv4().tcp(tcp);
    }
    void local(bool ipv6, bool is) {
        const char* prefix = ipv6 ? "2001:db8::1/128" : "10.0.0.1/32";
        is ? gate().add_local(prefix) : gate().remove_local(prefix);
    }
    // How often a SYN was dropped though its address was local no more, right after one like it was.
    int remembered(bool ipv6) {
        int times = 0;
        for (int i = 0; i < tries; ++i) {
            EXPECT_EQ(verdict(syn(ipv6)), SYNGATE_REASON_dropped);
            local(ipv6, false);
            times += verdict(syn(ipv6, 40001)) == SYNGATE_REASON_dropped ? 1 : 0;
            local(ipv6, true);
        }
        return times;
    }
};
SYNGATE_EVERY_HOOK(Alike);

TEST_P(Alike, TheNextLikeItIsDroppedWithoutAskingAgain) {
    EXPECT_GT(remembered(false), 0);
    EXPECT_GT(remembered(true), 0);
}

TEST_P(Alike, NothingIsRememberedWhereThePolicyAsksWhoSends) {
    gate().close(Gate::ever, Gate::ever, false);
    EXPECT_EQ(remembered(false), 0);
    EXPECT_EQ(remembered(true), 0);
}

TEST_P(Alike, NothingIsRememberedWhenTheLeaseEndsSoon) {
    gate().close(90ms);
    const auto closed = std::chrono::steady_clock::now();
    ASSERT_EQ(verdict(syn(false)), SYNGATE_REASON_dropped);
    local(false, false);
    const auto reason = verdict(syn(false));
    if (std::chrono::steady_clock::now() - closed < 80ms) { // else the lease may have ended
        EXPECT_EQ(reason, SYNGATE_REASON_not_local);
    }
}

TEST_P(Alike, IsForgottenWithinAJiffy) {
    ASSERT_EQ(verdict(syn(false)), SYNGATE_REASON_dropped);
    local(false, false);
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    syngate_reason reason = SYNGATE_REASON_dropped;
    while (reason == SYNGATE_REASON_dropped && std::chrono::steady_clock::now() < deadline)
        reason = verdict(syn(false));
    EXPECT_EQ(reason, SYNGATE_REASON_not_local);
}

TEST_P(Alike, IsForgottenWithItsWindow) {
    for (int i = 0; i < tries; ++i) {
        gate().set_port(80, SYNGATE_POLICY_DROP);
        gate().close();
        ASSERT_EQ(verdict(syn(false)), SYNGATE_REASON_dropped);
        gate().open();
        ASSERT_EQ(verdict(syn(false)), SYNGATE_REASON_gate_open);
        gate().set_port(80, SYNGATE_POLICY_DROP, Gate::generation + 1);
        gate().close();
        ASSERT_EQ(verdict(syn(false)), SYNGATE_REASON_not_gated);
    }
}

} // namespace syngate::prog
