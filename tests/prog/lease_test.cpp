// SPDX-License-Identifier: GPL-2.0-or-later
// When the gate acts at all.
#include "prog/gate_fixture.hpp"

namespace syngate::prog {

using namespace std::chrono_literals;

class Lease : public GateTest {
protected:
    Packet syn() { return link().ipv4().tcp(); }
};
SYNGATE_EVERY_HOOK(Lease);

TEST_P(Lease, AnOpenGatePassesWhateverElseIsSet) {
    gate().open();
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_gate_open);
    EXPECT_EQ(verdict(link().ipv4().tcp({.dport = 443})), SYNGATE_REASON_gate_open);
    EXPECT_EQ(verdict(link().ipv4().tcp().truncate(link_length() + 34)), SYNGATE_REASON_gate_open);
}

TEST_P(Lease, AClosedGateDropsUntilItIsOpened) {
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_dropped);
    gate().open();
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_gate_open);
    gate().close();
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_dropped);
}

TEST_P(Lease, AnExpiredLeaseOpensTheGateByItself) {
    gate().close(-1ns);
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_lease_expired);
    EXPECT_EQ(verdict(link().ipv4().tcp({.dport = 443})), SYNGATE_REASON_lease_expired);
    EXPECT_TRUE(gate().consume().empty());
}

TEST_P(Lease, ARenewedLeaseCannotOutliveTheLongestWindow) {
    gate().close(1h, -1ns);
    EXPECT_EQ(verdict(syn()), SYNGATE_REASON_lease_expired);
}

TEST_P(Lease, EndsAtItsInstantAndNotBefore) {
    const auto closed = std::chrono::steady_clock::now();
    gate().close(20ms);
    syngate_reason reason = SYNGATE_REASON_COUNT;
    for (int i = 0; i < 1'000'000 && reason != SYNGATE_REASON_lease_expired; i++) {
        const auto before = std::chrono::steady_clock::now();
        reason = verdict(syn());
        if (before - closed > 2s)
            break;
        if (reason == SYNGATE_REASON_lease_expired)
            EXPECT_GE(std::chrono::steady_clock::now() - closed, 20ms);
        else
            EXPECT_EQ(reason, SYNGATE_REASON_dropped);
    }
    EXPECT_EQ(reason, SYNGATE_REASON_lease_expired);
}

} // namespace syngate::prog
