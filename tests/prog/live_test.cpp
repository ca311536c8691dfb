// SPDX-License-Identifier: GPL-2.0-or-later
// What BPF_PROG_RUN refuses or cannot express, on tun and tap devices with the program attached at
// clsact: datagrams of any length without a link layer, short Ethernet frames, and VLAN tags that the
// kernel takes out of the frame before TC sees it.
#include "base/fd.hpp"
#include "prog/gate_fixture.hpp"
#include "prog/world.hpp"

#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

namespace syngate::prog {

// With packet information: 4 bytes before each datagram, of which the last two are its EtherType.
class Device : public GateTest {
protected:
    static bool tap() { return hook() == Hook::tc; }
    static constexpr const char* name = "live0";

    void SetUp() override {
        GateTest::SetUp();
        if (IsSkipped() || HasFatalFailure())
            return;
        fd_ = Fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
        if (!fd_)
            GTEST_SKIP() << "/dev/net/tun: " << std::strerror(errno);
        ifreq request = {};
        std::strcpy(request.ifr_name, name);
        request.ifr_flags = tap() ? IFF_TAP | IFF_NO_PI : IFF_TUN;
        ASSERT_EQ(ioctl(fd_.get(), TUNSETIFF, &request), 0) << std::strerror(errno);
        const auto up = ip_batch(std::string("link set ") + name +
                                 (tap() ? " address 02:00:00:00:00:01 mtu 4000 up\n" : " mtu 4000 up\n"));
        ASSERT_TRUE(up) << up.error().message;
        gate().set_interface(index_of(name), true);

        bpf_tc_hook at = {};
        at.sz = sizeof(at);
        at.ifindex = static_cast<int>(index_of(name));
        at.attach_point = BPF_TC_INGRESS;
        ASSERT_EQ(bpf_tc_hook_create(&at), 0) << std::strerror(errno);
        bpf_tc_opts program = {};
        program.sz = sizeof(program);
        program.prog_fd = gate().program(hook());
        ASSERT_EQ(bpf_tc_attach(&at, &program), 0) << std::strerror(errno);
    }

    // The driver hands the frame to the stack before write() returns, so the counter has moved.
    syngate_reason receive(const Bytes& frame, std::uint16_t ether_type) {
        Bytes written;
        if (!tap())
            written = {0, 0, static_cast<std::uint8_t>(ether_type >> 8),
                       static_cast<std::uint8_t>(ether_type)};
        written.insert(written.end(), frame.begin(), frame.end());
        const Counters before = gate().counters();
        const auto sent = write(fd_.get(), written.data(), written.size());
        EXPECT_EQ(sent, static_cast<ssize_t>(written.size())) << std::strerror(errno);
        const Counters after = gate().counters();
        syngate_reason moved = SYNGATE_REASON_COUNT;
        for (std::size_t i = 0; i < after.size(); i++)
            if (after[i] != before[i]) {
                EXPECT_EQ(after[i], before[i] + 1) << reason_name(static_cast<unsigned>(i));
                EXPECT_EQ(moved, SYNGATE_REASON_COUNT) << "two counters moved";
                moved = static_cast<syngate_reason>(i);
            }
        return moved;
    }
    syngate_reason receive4(const Packet& p) { return receive(p.bytes(), 0x0800); }
    syngate_reason receive6(const Packet& p) { return receive(p.bytes(), 0x86dd); }

    void expect_parked(const Bytes& frame, std::uint16_t tci, std::uint16_t protocol) {
        const auto records = gate().consume();
        ASSERT_EQ(records.size(), 1U);
        EXPECT_TRUE(records[0].frame == frame);
        EXPECT_EQ(records[0].head.ifindex, index_of(name));
        EXPECT_EQ(records[0].head.ethernet, ethernet());
        EXPECT_EQ(records[0].head.vlan_tci, tci);
        EXPECT_EQ(records[0].head.vlan_proto, htons(protocol));
    }

private:
    Fd fd_; // the device lives as long as it
};
INSTANTIATE_TEST_SUITE_P(Live, Device, ::testing::Values(Hook::tc, Hook::tc_l3),
                         [](const auto& test) { return to_string(test.param); });

TEST_P(Device, ActsOnEveryHeaderLength) {
    for (std::size_t options = 0; options <= 40; options += 4) {
        EXPECT_EQ(receive4(link().ipv4({.options = options}).tcp()), SYNGATE_REASON_dropped) << options;
        const Packet held = link().ipv4({.options = options}).tcp({.dport = 443});
        EXPECT_EQ(receive4(held), SYNGATE_REASON_parked) << options;
        expect_parked(held.bytes(), 0, 0);
    }
    for (std::uint8_t ihl = 0; ihl < 5; ihl++)
        EXPECT_EQ(receive4(link().ipv4({.ihl = ihl}).tcp()), SYNGATE_REASON_malformed) << int{ihl};
    const Packet six = link().ipv6({.traffic_class = 0}).dest_options().tcp({.dport = 443});
    EXPECT_EQ(receive6(six), SYNGATE_REASON_parked);
    expect_parked(six.bytes(), 0, 0);
}

TEST_P(Device, AnyAddressesWillDo) {
    EXPECT_EQ(receive4(link().ipv4({.src = "192.0.2.1"}).tcp()), SYNGATE_REASON_dropped);
    EXPECT_EQ(receive6(link().ipv6({.src = "2001:db8::2"}).tcp()), SYNGATE_REASON_dropped);
    EXPECT_EQ(receive4(link().ipv4({.dst = "10.0.0.2"}).tcp()), SYNGATE_REASON_not_local);
    EXPECT_EQ(receive6(link().ipv6({.dst = "2001:db8::2"}).tcp()), SYNGATE_REASON_not_local);
}

TEST_P(Device, PassesAFrameThatEndsAtAnyByte) {
    const std::size_t first = ethernet() ? 14 : 1; // what the drivers take at least
    const auto cut = [](const Bytes& all, std::size_t n) {
        return Bytes(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n));
    };
    const Bytes four = link().ipv4({.options = 8}).tcp({.options = 20}).bytes();
    for (std::size_t n = first; n < four.size(); n++)
        EXPECT_EQ(receive(cut(four, n), 0x0800), SYNGATE_REASON_truncated) << n;
    EXPECT_EQ(receive(four, 0x0800), SYNGATE_REASON_dropped);
    const Bytes six = link().ipv6().hop_by_hop().fragment().tcp({.options = 20}).bytes();
    for (std::size_t n = first; n < six.size(); n++)
        EXPECT_EQ(receive(cut(six, n), 0x86dd), SYNGATE_REASON_truncated) << n;
    EXPECT_EQ(receive(six, 0x86dd), SYNGATE_REASON_dropped);
}

class NoLink : public Device {};
INSTANTIATE_TEST_SUITE_P(Live, NoLink, ::testing::Values(Hook::tc_l3),
                         [](const auto& test) { return to_string(test.param); });

TEST_P(NoLink, GoesByWhatTheKernelCallsTheDatagram) {
    for (const std::uint16_t type : List16{0x0806, 0x8847, 0x0801})
        EXPECT_EQ(receive(link().ipv4().tcp().bytes(), type), SYNGATE_REASON_not_ip) << type;
    EXPECT_EQ(receive(link().ipv6().tcp().bytes(), 0x0800), SYNGATE_REASON_malformed);
    EXPECT_EQ(receive(link().ipv4().tcp().payload(40).bytes(), 0x86dd), SYNGATE_REASON_malformed);
}

class TakenOutTag : public Device {};
INSTANTIATE_TEST_SUITE_P(Live, TakenOutTag, ::testing::Values(Hook::tc),
                         [](const auto& test) { return to_string(test.param); });

TEST_P(TakenOutTag, IsKeptBesideTheFrame) {
    for (const std::uint16_t protocol : List16{0x8100, 0x88a8})
        for (const std::uint16_t tci : List16{0, 1, 0x2064, 0xffff}) {
            EXPECT_EQ(receive4(link().vlan(tci, protocol).ipv4().tcp({.dport = 443})), SYNGATE_REASON_parked);
            expect_parked(link().ipv4().tcp({.dport = 443}).bytes(), tci, protocol);
            EXPECT_EQ(receive6(link().vlan(tci, protocol).vlan(7).ipv6().tcp({.dport = 443})),
                      SYNGATE_REASON_parked);
            expect_parked(link().vlan(7).ipv6().tcp({.dport = 443}).bytes(), tci, protocol);
        }
    EXPECT_EQ(receive4(link().vlan(100).ipv4().tcp()), SYNGATE_REASON_dropped);
    EXPECT_EQ(receive4(link().vlan(100).arp()), SYNGATE_REASON_not_ip);
}

} // namespace syngate::prog
