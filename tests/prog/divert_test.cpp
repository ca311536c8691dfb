// SPDX-License-Identifier: GPL-2.0-or-later
// What the divert program marks, and why the rest passes unmarked.
#include "gate/divert_program.hpp"
#include "prog/gate_fixture.hpp"
#include "prog/repaired.hpp"
#include "prog/world.hpp"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <cstdio>
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace syngate::prog {

namespace {

constexpr std::uint32_t mark = 0x20;
constexpr std::uint32_t mask = 0xf0;
constexpr std::uint32_t others = 0xa000000b;    // what somebody else has marked
constexpr std::uint32_t before = others | 0x50; // and bits that are the mask's
constexpr const char* foreign4 = "192.0.2.7";   // a client's address, on a socket of ours
constexpr const char* foreign6 = "2001:db8:7::7";
constexpr std::uint16_t foreign_port = 50000, backend_port = 9000;

const char* name_of(unsigned reason) {
    static constexpr const char* names[] = {
#define SYNGATE_NAME(name, verdict, meaning) #name,
        SYNGATE_DIVERT_REASONS(SYNGATE_NAME)
#undef SYNGATE_NAME
    };
    return reason < SYNGATE_DIVERT_COUNT ? names[reason] : "none";
}

Fd listening(std::uint16_t port, bool transparent) {
    Fd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1, off = 0;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (transparent)
        set_transparent(fd, true, 1);
    const SocketAddress any("::", port);
    EXPECT_EQ(bind(fd.get(), any.get(), any.length), 0) << std::strerror(errno);
    EXPECT_EQ(listen(fd.get(), 8), 0);
    return fd;
}

LocalPrefix one_address(const char* text) {
    LocalPrefix prefix{.bits = 128, .address = {}};
    if (inet_pton(AF_INET6, text, prefix.address.data()) != 1) {
        prefix.address[10] = prefix.address[11] = 0xff;
        EXPECT_EQ(inet_pton(AF_INET, text, prefix.address.data() + 12), 1);
    }
    return prefix;
}

} // namespace

class Divert : public testing::TestWithParam<Hook> {
protected:
    void SetUp() override {
        if (const auto world = enter_world(); !world && world.error().exit == Exit::impossible)
            GTEST_SKIP() << world.error().message;
        else
            ASSERT_TRUE(world) << world.error().message;
        // Where the packets' sources are, so that sockets can be connected to them.
        ASSERT_TRUE(ip_batch("route replace 8.0.0.0/16 dev v1\nroute replace 2001:db8:86dd::/48 dev v1\n"));
        load("80=8080");
    }
    void load(const std::string& rules) {
        const DivertOptions options{.mark = mark, .mask = mask, .intercepts = *parse_intercepts(rules)};
        program_.reset();
        maps_.reset();
        auto maps = GateMaps::load({.owner_id = 1, .park_memory = 4096, .intercepts = options.intercepts});
        ASSERT_TRUE(maps) << maps.error().message;
        maps_ = std::move(*maps);
        ASSERT_TRUE(maps_->set_local({one_address(server4.data()), one_address(server6.data())}, {}, true));
        auto program = DivertProgram::load(options, *maps_);
        ASSERT_TRUE(program) << program.error().message;
        program_ = std::move(*program);
    }

    // Asserts that one counter moved, that the next program runs, that the frame is as it was, and that the
    // mark is what the reason says.
    std::string verdict(const Packet& packet) { return verdict(packet.bytes()); }
    std::string verdict(const Bytes& frame) {
        const syngate_divert_verdicts old = program_->verdicts();
        Bytes out(frame.size() + 64);
        __sk_buff skb = {}, skb_out = {};
        skb.ifindex = index_of("v0");
        skb.mark = before;
        bpf_test_run_opts run = {};
        run.sz = sizeof(run);
        run.data_in = frame.data();
        run.data_size_in = static_cast<std::uint32_t>(frame.size());
        run.data_out = out.data();
        run.data_size_out = static_cast<std::uint32_t>(out.size());
        run.ctx_in = &skb;
        run.ctx_size_in = sizeof(skb);
        run.ctx_out = &skb_out;
        run.ctx_size_out = sizeof(skb_out);
        EXPECT_EQ(bpf_prog_test_run_opts(program(), &run), 0) << std::strerror(errno);
        out.resize(run.data_size_out);
        EXPECT_EQ(run.retval, static_cast<std::uint32_t>(-1)) << "the next program runs";
        EXPECT_TRUE(out == frame) << "the program changed the frame";

        const syngate_divert_verdicts now = program_->verdicts();
        const auto* a = reinterpret_cast<const __u64*>(&old);
        const auto* b = reinterpret_cast<const __u64*>(&now);
        unsigned moved = 0, reason = SYNGATE_DIVERT_COUNT;
        for (unsigned i = 0; i < SYNGATE_DIVERT_COUNT; i++)
            if (a[i] != b[i]) {
                reason = i;
                moved += static_cast<unsigned>(b[i] - a[i]);
            }
        EXPECT_EQ(moved, 1U) << "each frame has one reason";
        EXPECT_EQ(skb_out.mark, reason >= SYNGATE_DIVERT_diverted ? others | mark : before)
            << name_of(reason);
        return name_of(reason);
    }
    [[nodiscard]] GateMaps& maps() const { return *maps_; }
    [[nodiscard]] int program() const { return program_->tc_program(GetParam() == Hook::tc); }
    [[nodiscard]] static Packet link() { return GetParam() == Hook::tc ? Packet().eth() : Packet(); }
    // From the backend to the foreign address.
    static Packet to4(const Tcp& tcp) { return link().ipv4({.dst = foreign4}).tcp(tcp); }
    static Packet to4() { return to4(from_backend(ACK)); }
    static Packet to6(const Tcp& tcp) { return link().ipv6({.dst = foreign6}).tcp(tcp); }
    static Packet to6() { return to6(from_backend(ACK)); }
    static Tcp from_backend(std::uint8_t flags = ACK) {
        return {.sport = backend_port, .dport = foreign_port, .flags = flags};
    }
    static Fd connection4(bool transparent = true) {
        return established({foreign4, foreign_port}, {client4.data(), backend_port}, transparent);
    }
    static Fd connection6(bool transparent = true) {
        return established({foreign6, foreign_port}, {client6.data(), backend_port}, transparent);
    }

private:
    std::unique_ptr<GateMaps> maps_;
    std::unique_ptr<DivertProgram> program_;
};
INSTANTIATE_TEST_SUITE_P(Hooks, Divert, testing::Values(Hook::tc, Hook::tc_l3),
                         [](const auto& test) { return to_string(test.param); });

TEST_P(Divert, MarksWhatATransparentSocketHas) {
    EXPECT_EQ(verdict(to4()), "no_socket");
    EXPECT_EQ(verdict(to6()), "no_socket");
    const Fd four = connection4(), six = connection6();
    for (const std::uint8_t flags : List8{ACK, SYN | ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN, 0}) {
        EXPECT_EQ(verdict(to4(from_backend(flags))), "diverted") << int{flags};
        EXPECT_EQ(verdict(to6(from_backend(flags))), "diverted") << int{flags};
    }
    EXPECT_EQ(verdict(to4().payload(1000)), "diverted");
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4, .options = 8}).tcp(from_backend())), "diverted");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).hop_by_hop().dest_options().tcp(from_backend())),
              "diverted");
}

TEST_P(Divert, EveryPartOfTheFourTupleCounts) {
    const Fd four = connection4(), six = connection6();
    EXPECT_EQ(verdict(to4({.sport = backend_port + 1, .dport = foreign_port, .flags = ACK})), "no_socket");
    EXPECT_EQ(verdict(to4({.sport = backend_port, .dport = foreign_port + 1, .flags = ACK})), "no_socket");
    EXPECT_EQ(verdict(to6({.sport = backend_port, .dport = foreign_port + 1, .flags = ACK})), "no_socket");
    EXPECT_EQ(verdict(link().ipv4({.dst = "192.0.2.8"}).tcp(from_backend())), "no_socket");
    EXPECT_EQ(verdict(link().ipv4({.src = "8.0.0.3", .dst = foreign4}).tcp(from_backend())), "no_socket");
}

TEST_P(Divert, PassesASocketThatIsNotTransparent) {
    const Fd four = connection4(false), six = connection6(false);
    EXPECT_EQ(verdict(to4()), "not_transparent");
    EXPECT_EQ(verdict(to6()), "not_transparent");
}

TEST_P(Divert, PassesWhatIsForThisHost) {
    const Fd wildcard = listening(foreign_port, true);
    EXPECT_EQ(verdict(link().ipv4().tcp()), "local");
    EXPECT_EQ(verdict(link().ipv6().tcp()), "local");
    EXPECT_EQ(verdict(link().ipv4().tcp(from_backend())), "local");
    EXPECT_EQ(verdict(to4(from_backend(SYN))), "no_socket") << "a listener is no connection";
}

TEST_P(Divert, PassesFragmentsWholeOrNot) {
    const Fd four = connection4(), six = connection6();
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4, .more_fragments = true}).tcp(from_backend())),
              "fragment");
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4, .fragment_offset = 64}).tcp(from_backend())), "fragment");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).fragment({.more = true}).tcp(from_backend())),
              "fragment");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).fragment({.offset = 8}).tcp(from_backend())),
              "fragment");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).fragment().tcp(from_backend())), "diverted") << "atomic";
}

TEST_P(Divert, PassesWhatIsNoWholeTcp) {
    const Fd four = connection4(), six = connection6();
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4}).udp().payload(20)), "not_tcp");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).icmp().payload(20)), "not_tcp");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6}).routing({.segments_left = 1}).tcp(from_backend())),
              "source_routed");
    Tcp bad = from_backend();
    bad.doff = 4;
    EXPECT_EQ(verdict(to4(bad)), "malformed");
    const std::size_t link_length = GetParam() == Hook::tc ? 14 : 0;
    EXPECT_EQ(verdict(to4().truncate(link_length + 20 + 19)), "truncated");
    EXPECT_EQ(verdict(to6().truncate(link_length + 40 + 19)), "truncated");
    EXPECT_EQ(verdict(link().ipv6({.dst = foreign6, .payload_len = 19}).tcp(from_backend())), "truncated");
    EXPECT_EQ(verdict(to4().payload(100).truncate(link_length + 20 + 20 + 99)), "truncated");
    EXPECT_EQ(verdict(to6().payload(100).truncate(link_length + 40 + 20 + 99)), "truncated");
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4, .tot_len = 39}).tcp(from_backend())), "truncated")
        << "padding";
    EXPECT_EQ(verdict(link().ipv4({.dst = foreign4, .version = 5}).tcp(from_backend())), "malformed");
}

// Path MTU discovery: errors about what the transparent socket sent come to its foreign address.
TEST_P(Divert, MarksErrorsAboutATransparentConnection) {
    const auto error = [](Packet outer, std::uint8_t type, const Bytes& about) {
        Bytes frame = outer.payload(8 + about.size()).bytes();
        frame[frame.size() - about.size() - 8] = type;
        std::ranges::copy(about, frame.end() - static_cast<std::ptrdiff_t>(about.size()));
        return frame;
    };
    const auto error4 = [&](std::uint8_t type, std::uint16_t from_port = foreign_port) {
        return error(link().ipv4({.dst = foreign4, .protocol = 1}), type,
                     Packet()
                         .ipv4({.src = foreign4, .dst = client4})
                         .tcp({.sport = from_port, .dport = backend_port, .flags = ACK})
                         .bytes());
    };
    const auto error6 = [&](std::uint8_t type, std::uint16_t from_port = foreign_port) {
        return error(link().ipv6({.dst = foreign6, .next = 58}), type,
                     Packet()
                         .ipv6({.src = foreign6, .dst = client6})
                         .tcp({.sport = from_port, .dport = backend_port, .flags = ACK})
                         .bytes());
    };
    EXPECT_EQ(verdict(error4(3)), "not_tcp");
    EXPECT_EQ(verdict(error6(2)), "not_tcp");
    const Fd four = connection4(), six = connection6();
    for (const std::uint8_t type : List8{3, 11, 12})
        EXPECT_EQ(verdict(error4(type)), "diverted_error") << int{type};
    for (const std::uint8_t type : List8{1, 2, 3, 4})
        EXPECT_EQ(verdict(error6(type)), "diverted_error") << int{type};
    for (const std::uint8_t type : List8{0, 8, 5})
        EXPECT_EQ(verdict(error4(type)), "not_tcp") << int{type};
    for (const std::uint8_t type : List8{128, 129, 135})
        EXPECT_EQ(verdict(error6(type)), "not_tcp") << int{type};
    EXPECT_EQ(verdict(error4(3, foreign_port + 1)), "not_tcp") << "another connection";
    EXPECT_EQ(verdict(error6(2, foreign_port + 1)), "not_tcp");
}

TEST_P(Divert, PassesOtherLinkLayers) {
    if (GetParam() != Hook::tc)
        GTEST_SKIP() << "has no link layer";
    const Fd four = connection4();
    const auto to = [](Packet packet) { return packet.ipv4({.dst = foreign4}).tcp(from_backend()); };
    EXPECT_EQ(verdict(to(link())), "diverted");
    EXPECT_EQ(verdict(to(link().vlan(100))), "vlan");
    EXPECT_EQ(verdict(to(link().vlan(100, 0x88a8).vlan(1))), "vlan");
    EXPECT_EQ(verdict(to(Packet().eth({.dst = 0x020000000099}))), "other_host");
    EXPECT_EQ(verdict(link().arp()), "not_ip");
}

TEST_P(Divert, MarksASynThatARuleLeadsToATransparentListener) {
    const auto syn4 = [](std::uint16_t port = 80) { return to4({.dport = port}); };
    const auto syn6 = [](std::uint16_t port = 80) { return to6({.dport = port}); };
    EXPECT_EQ(verdict(syn4()), "intercept_no_listener");
    EXPECT_EQ(verdict(syn6()), "intercept_no_listener");
    {
        const Fd ordinary = listening(8080, false);
        EXPECT_EQ(verdict(syn4()), "intercept_no_listener");
    }
    const Fd listener = listening(8080, true);
    EXPECT_EQ(verdict(syn4()), "intercepted");
    EXPECT_EQ(verdict(syn6()), "intercepted");
    EXPECT_EQ(verdict(syn4(81)), "no_socket") << "another port";
    EXPECT_EQ(verdict(syn4(8080)), "no_socket") << "the listener's own port has no rule";
    EXPECT_EQ(verdict(link().ipv4().tcp()), "local");
    for (const std::uint8_t flags : List8{ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, RST | SYN})
        EXPECT_EQ(verdict(to4({.dport = 80, .flags = flags})), "no_socket") << int{flags};
}

TEST_P(Divert, TheRulesPrefixesCount) {
    const Fd listener = listening(8080, true);
    load("192.0.2.0/24:80=8080,[2001:db8:7::]/48:80=9999");
    EXPECT_EQ(verdict(to4({.dport = 80})), "intercepted");
    EXPECT_EQ(verdict(link().ipv4({.dst = "192.0.3.1"}).tcp({.dport = 80})), "no_socket");
    EXPECT_EQ(verdict(to6({.dport = 80})), "intercept_no_listener");
    EXPECT_EQ(verdict(link().ipv6({.dst = "2001:db8:8::1"}).tcp({.dport = 80})), "no_socket");
}

// Its own addresses are not intercepted, whichever VRF they are in; what a transparent socket has is
// diverted.
TEST_P(Divert, AnAddressOfAVrfIsNotIntercepted) {
    ASSERT_TRUE(maps().set_local({one_address(server4.data()), one_address(server6.data())},
                                 {one_address(foreign4), one_address(foreign6)}, true));
    const Fd listener = listening(8080, true);
    EXPECT_EQ(verdict(to4({.dport = 80})), "local");
    EXPECT_EQ(verdict(to6({.dport = 80})), "local");
    EXPECT_EQ(verdict(link().ipv4({.dst = "192.0.2.8"}).tcp({.dport = 80})), "intercepted");
    EXPECT_EQ(verdict(to4()), "no_socket");
    const Fd four = connection4(), six = connection6();
    EXPECT_EQ(verdict(to4()), "diverted");
    EXPECT_EQ(verdict(to6()), "diverted");
}

TEST_P(Divert, ARuleToTheSamePortNeedsNoOffer) {
    load("8080=8080");
    EXPECT_EQ(verdict(to4({.dport = 8080})), "intercept_no_listener");
    const Fd listener = listening(8080, true);
    EXPECT_EQ(verdict(to4({.dport = 8080})), "intercepted");
    EXPECT_EQ(verdict(to6({.dport = 8080})), "intercepted");
}

// What a packet costs. Prints, asserts nothing, as cost_test.cpp.
TEST_P(Divert, DISABLED_CostPerPacket) {
    const Fd four = connection4(), six = connection6();
    const auto report = [&](const char* what, const Packet& packet) {
        std::uint32_t best = ~0U;
        for (int i = 0; i < 5; i++) {
            const auto run =
                Gate::run_program(program(), GetParam(), packet.bytes(), index_of("v0"), 1'000'000);
            ASSERT_TRUE(run) << run.error().message;
            best = std::min(best, run->ns);
        }
        std::printf("%-6s divert %-29s %4u ns\n", to_string(GetParam()).c_str(), what, best);
    };
    report("to this host, IPv4", link().ipv4().tcp(from_backend()).payload(1400));
    report("to this host, IPv6", link().ipv6().tcp(from_backend()).payload(1400));
    report("diverted, IPv4", to4().payload(1400));
    report("diverted, IPv6", to6().payload(1400));
    report("forwarded, IPv4", link().ipv4({.dst = "192.0.2.8"}).tcp(from_backend()).payload(1400));
    report("UDP, IPv4", link().ipv4({.dst = foreign4}).udp().payload(1400));
}

} // namespace syngate::prog
