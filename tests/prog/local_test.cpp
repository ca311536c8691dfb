// SPDX-License-Identifier: GPL-2.0-or-later
// Only what ends on this host.
#include "prog/gate_fixture.hpp"
#include "prog/world.hpp"

namespace syngate::prog {

class Locality : public GateTest {
protected:
    void forwarding(bool on) {
        const auto set = set_forwarding("v0", on);
        ASSERT_TRUE(set) << set.error().message;
        gate().close(); // what is remembered of the window before is forgotten
    }
    // The world is shared by all cases of this process.
    void TearDown() override {
        if (!IsSkipped()) {
            EXPECT_TRUE(set_forwarding("v0", false));
        }
    }
    syngate_reason to4(std::string_view dst, std::size_t payload = 0) {
        return verdict(link().ipv4({.dst = dst}).tcp().payload(payload));
    }
    syngate_reason to6(std::string_view dst) { return verdict(link().ipv6({.dst = dst}).tcp()); }
};
SYNGATE_EVERY_HOOK(Locality);

TEST_P(Locality, ActsOnLocalAddressesWithForwardingOffAndOn) {
    for (const bool on : {false, true}) {
        forwarding(on);
        EXPECT_EQ(to4("10.0.0.1"), SYNGATE_REASON_dropped) << on;
        EXPECT_EQ(to6("2001:db8::1"), SYNGATE_REASON_dropped) << on;
    }
}

TEST_P(Locality, PassesAddressesThatAreNotInTheMap) {
    for (const bool on : {false, true}) {
        forwarding(on);
        for (const char* address : {"10.0.0.2", "10.9.0.5", "10.0.0.0", "192.0.2.1", "255.255.255.255"})
            EXPECT_EQ(to4(address), SYNGATE_REASON_not_local) << address << on;
        for (const char* address : {"2001:db8::2", "2001:db8:9::5", "::1", "::", "ff02::1"})
            EXPECT_EQ(to6(address), SYNGATE_REASON_not_local) << address << on;
    }
}

TEST_P(Locality, ActsOnWholePrefixes) {
    gate().add_local("10.1.0.0/16");
    gate().add_local("2001:db8:1::/48");
    EXPECT_EQ(to4("10.1.0.1"), SYNGATE_REASON_dropped);
    EXPECT_EQ(to4("10.1.255.255"), SYNGATE_REASON_dropped);
    EXPECT_EQ(to4("10.2.0.1"), SYNGATE_REASON_not_local);
    EXPECT_EQ(to6("2001:db8:1:2::3"), SYNGATE_REASON_dropped);
    EXPECT_EQ(to6("2001:db8:2::3"), SYNGATE_REASON_not_local);
}

TEST_P(Locality, TheFamiliesDoNotMeet) {
    // ::10.0.0.1, 64:ff9b::10.0.0.1: the same last four bytes.
    EXPECT_EQ(to6("::10.0.0.1"), SYNGATE_REASON_not_local);
    EXPECT_EQ(to6("64:ff9b::10.0.0.1"), SYNGATE_REASON_not_local);
}

// The prefix is in the map, since it is local in another table, but here it leads elsewhere.
TEST_P(Locality, PassesWhatThisInterfaceForwards) {
    gate().add_local("10.9.0.0/16");
    gate().add_local("2001:db8:9::/48");
    EXPECT_EQ(to4("10.9.0.5"), SYNGATE_REASON_dropped) << "forwarding is off: nothing is forwarded";
    EXPECT_EQ(to6("2001:db8:9::5"), SYNGATE_REASON_dropped);

    forwarding(true);
    EXPECT_EQ(to4("10.9.0.5"), SYNGATE_REASON_not_local) << "its neighbour is known";
    EXPECT_EQ(to4("10.9.0.6"), SYNGATE_REASON_not_local) << "its neighbour is not known";
    EXPECT_EQ(to4("10.9.0.7", 800), SYNGATE_REASON_not_local) << "longer than the path's MTU";
    EXPECT_EQ(to6("2001:db8:9::5"), SYNGATE_REASON_not_local);
    EXPECT_EQ(to6("2001:db8:9::6"), SYNGATE_REASON_not_local);
    EXPECT_EQ(to4("10.0.0.1"), SYNGATE_REASON_dropped);
    EXPECT_EQ(to6("2001:db8::1"), SYNGATE_REASON_dropped);
}

TEST_P(Locality, ActsOnAPrefixInTheMapThatLeadsNowhere) {
    forwarding(true);
    gate().add_local("172.16.0.0/12");
    EXPECT_EQ(to4("172.16.0.1"), SYNGATE_REASON_dropped);
}

} // namespace syngate::prog
