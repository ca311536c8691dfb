// SPDX-License-Identifier: GPL-2.0-or-later
// What is intercepted meets the closed gate as what goes to its listener does; what only has a rule passes.
#include "prog/gate_fixture.hpp"
#include "prog/world.hpp"

namespace syngate::prog {

class InterceptedGate : public GateTest {
protected:
    static constexpr const char* foreign4 = "192.0.2.7";
    static constexpr const char* foreign6 = "2001:db8:7::7";

    void SetUp() override {
        GateTest::SetUp();
        if (IsSkipped() || HasFatalFailure())
            return;
        load({.intercepting = true});
        gate().set_port(8080, SYNGATE_POLICY_DROP);
        gate().set_port(8443, SYNGATE_POLICY_HOLD);
        gate().add_intercept("80=8080");
        gate().add_intercept("443=8443");
        gate().add_intercept("81=8081");
    }
    syngate_reason to4(std::uint16_t port = 80, std::string_view dst = foreign4) {
        return verdict(link().ipv4({.dst = dst}).tcp({.dport = port}));
    }
    syngate_reason to6(std::uint16_t port = 80, std::string_view dst = foreign6) {
        return verdict(link().ipv6({.dst = dst}).tcp({.dport = port}));
    }
};
SYNGATE_EVERY_HOOK(InterceptedGate);

TEST_P(InterceptedGate, PassesWhatNobodyListenedFor) {
    for (const std::uint16_t port : List16{80, 443}) { // gated as local ports, too
        EXPECT_EQ(to4(port), SYNGATE_REASON_not_local) << port;
        EXPECT_EQ(to6(port), SYNGATE_REASON_not_local) << port;
    }
    gate().add_listener("0.0.0.0", 8080, Gate::generation - 1);
    gate().add_listener("0.0.0.0", 8081);
    EXPECT_EQ(to4(), SYNGATE_REASON_not_local) << "another window's, another port's";
    EXPECT_EQ(to4(81), SYNGATE_REASON_not_gated);
    EXPECT_EQ(verdict(link().ipv4().tcp()), SYNGATE_REASON_dropped) << "to this host";
}

TEST_P(InterceptedGate, ActsOnWhatSomebodyListenedFor) {
    gate().add_listener("0.0.0.0", 8080);
    EXPECT_EQ(to4(), SYNGATE_REASON_dropped);
    EXPECT_EQ(to6(), SYNGATE_REASON_not_local) << "a family by itself";
    gate().add_listener("::", 8080);
    EXPECT_EQ(to6(), SYNGATE_REASON_dropped);
    gate().add_listener("::", 8443);
    EXPECT_EQ(to4(443), SYNGATE_REASON_not_local);
    EXPECT_EQ(to6(443), SYNGATE_REASON_parked);
}

TEST_P(InterceptedGate, AListenerOnOneAddressIsForThatOne) {
    gate().add_listener(foreign4, 8080);
    gate().add_listener(foreign6, 8080);
    EXPECT_EQ(to4(), SYNGATE_REASON_dropped);
    EXPECT_EQ(to6(), SYNGATE_REASON_dropped);
    EXPECT_EQ(to4(80, "192.0.2.8"), SYNGATE_REASON_not_local);
    EXPECT_EQ(to6(80, "2001:db8:7::8"), SYNGATE_REASON_not_local);
}

// None of these is intercepted.
TEST_P(InterceptedGate, PassesWhatTheDivertProgramLetsPass) {
    gate().add_listener("0.0.0.0", 8080);
    gate().add_listener("::", 8080);
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4, .more_fragments = true}).tcp().payload(16)),
              SYNGATE_REASON_not_local);
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).fragment({.more = true}).tcp()),
              SYNGATE_REASON_not_local);
    const auto on_lo = ethernet() ? Packet().eth({.dst = 0}) : Packet();
    EXPECT_EQ(verdict(Packet(on_lo).ipv4({.dst = foreign4}).tcp().bytes(), index_of("lo")),
              SYNGATE_REASON_not_local);
    gate().add_local("192.0.2.9/32", SYNGATE_LOCAL_VRF);
    gate().add_local("2001:db8:7::9/128", SYNGATE_LOCAL_VRF);
    EXPECT_EQ(to4(80, "192.0.2.9"), SYNGATE_REASON_not_local) << "an address of a VRF";
    EXPECT_EQ(to6(80, "2001:db8:7::9"), SYNGATE_REASON_not_local);
    if (ethernet()) {
        EXPECT_EQ(verdict(link().vlan(100).ipv4({.dst = foreign4}).tcp()), SYNGATE_REASON_not_local);
    }
    EXPECT_EQ(to4(), SYNGATE_REASON_dropped);
}

} // namespace syngate::prog
