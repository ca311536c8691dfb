// SPDX-License-Identifier: GPL-2.0-or-later
// Invariant 2 on a router: forwarded traffic to the gated port number, and all that is no SYN to a gated port
// of this host, passes unaltered while the gate is closed.
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"
#include "netns/robust_frames.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <unistd.h>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 80;
constexpr std::uint16_t other_port = 81;
constexpr auto backend_v4 = "10.88.0.2";
constexpr auto backend_v6 = "fd00:88::2";
constexpr auto backend_device = "back1";
const std::vector<Target> backends{{backend_v4, port}, {backend_v6, port}};
// Every address of the router, by whichever side it is reached.
const std::vector<Target> routers{
    {ClientHost::server_v4, port}, {ClientHost::server_v6, port}, {"10.88.0.1", port}, {"fd00:88::1", port}};

bool readable(int fd) {
    pollfd ready{fd, POLLIN, 0};
    return ::poll(&ready, 1, 5000) == 1;
}

// client - router (the sandbox's own namespace) - backend
class Router : public testing::TestWithParam<std::tuple<const char*, const char*>> {
protected:
    Router() {
        connect_by_veth({hosts.server, "back0", "10.88.0.1/24", "fd00:88::1/64"},
                        {backend, backend_device, "10.88.0.2/24", "fd00:88::2/64"});
        for (const char* name : {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"})
            set_sysctl(name, "1");
        route(hosts.client, ClientHost::server_v4, ClientHost::server_v6);
        route(backend, "10.88.0.1", "fd00:88::1");
    }
    ~Router() override {
        run({"ip", "link", "delete", "back0"});
        for (const char* name : {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"})
            set_sysctl(name, "0");
    }
    static void route(const Namespace& where, const char* v4, const char* v6) {
        must_run({"ip", "-4", "route", "add", "default", "via", v4}, {.where = &where});
        must_run({"ip", "-6", "route", "add", "default", "via", v6}, {.where = &where});
    }
    static std::string hook() { return std::get<0>(GetParam()); }
    static bool by_iptables() { return hook() == "nft" || hook() == "legacy"; }
    static Argv gating() {
        Argv argv{"--ports", "80", "--policy", std::get<1>(GetParam()), "--mode"};
        if (by_iptables())
            argv.emplace_back("iptables");
        else
            argv.insert(argv.end(), {"bpf", "--hook", hook()});
        return argv;
    }
    static SpawnOptions environment() {
        SpawnOptions options;
        if (by_iptables())
            options.extra_env = {only_variant(hook())};
        return options;
    }

    ClientHost hosts;
    const Namespace backend;
};

// A UDP datagram arrives at the port.
bool udp_passes(const Namespace& from, const Target& to) {
    const bool v6 = to.address.find(':') != std::string::npos;
    const Fd receiver(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(to.port);
    EXPECT_EQ(::bind(receiver.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    const Inside inside(from);
    const Fd sender(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 address = any;
    ::inet_pton(AF_INET6, (v6 ? to.address : "::ffff:" + to.address).c_str(), &address.sin6_addr);
    EXPECT_EQ(::sendto(sender.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), sizeof address), 1);
    return readable(receiver.get());
}

// An echo request is answered.
bool ping_passes(const Namespace& from, const std::string& to) {
    const Inside inside(from);
    if (to.find(':') == std::string::npos) {
        const Fd fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
        icmphdr request{};
        request.type = ICMP_ECHO;
        request.checksum = static_cast<std::uint16_t>(~htons(ICMP_ECHO << 8));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        ::inet_pton(AF_INET, to.c_str(), &address.sin_addr);
        ::sendto(fd.get(), &request, sizeof request, 0, reinterpret_cast<sockaddr*>(&address),
                 sizeof address);
        return readable(fd.get());
    }
    const Fd fd(::socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6));
    icmp6_filter only_replies;
    ICMP6_FILTER_SETBLOCKALL(&only_replies);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &only_replies);
    ::setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &only_replies, sizeof only_replies);
    icmp6_hdr request{};
    request.icmp6_type = ICMP6_ECHO_REQUEST;
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    ::inet_pton(AF_INET6, to.c_str(), &address.sin6_addr);
    ::sendto(fd.get(), &request, sizeof request, 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
    return readable(fd.get());
}

void expect_talk(const Fd& one, const Fd& other) {
    char byte = 'x';
    ASSERT_EQ(::write(one.get(), &byte, 1), 1);
    ASSERT_TRUE(readable(other.get()));
    ASSERT_EQ(::read(other.get(), &byte, 1), 1);
    ASSERT_EQ(::write(other.get(), &byte, 1), 1);
    ASSERT_TRUE(readable(one.get()));
    ASSERT_EQ(::read(one.get(), &byte, 1), 1);
}

} // namespace

TEST_P(Router, ForwardsWhatIsForOthersWhileItsOwnPortIsClosed) {
    const Listener at_backend(backend, port);
    const Listener at_router(port);
    const Listener at_other_port(other_port);
    const Fd before = connect_from(hosts.client, routers.front());
    const Fd accepted = at_router.accept();

    Closed agent(gating(), environment());
    for (const auto& target : routers)
        EXPECT_EQ(knock(hosts.client, target), Reply::silent) << target.address;
    for (const auto& target : backends)
        EXPECT_EQ(knock(hosts.client, target), Reply::connected) << target.address;
    for (const auto& target : routers) {
        EXPECT_EQ(knock(hosts.client, {target.address, other_port}), Reply::connected) << target.address;
        EXPECT_TRUE(udp_passes(hosts.client, target)) << target.address;
        EXPECT_TRUE(ping_passes(hosts.client, target.address)) << target.address;
    }
    expect_talk(before, accepted);
    // As the gate itself saw it. IPv4's and IPv6's forwarded SYN, and nothing dropped but the router's own.
    const std::string verdict = std::get<1>(GetParam()) == std::string("hold") ? "parked" : "dropped";
    if (!by_iptables()) { // whose rules do not see what is not theirs, and are counted in the end
        const auto verdicts = agent.ask("status")["gate"]["verdicts"];
        EXPECT_EQ(verdicts["not_local"], 2) << verdicts;
        EXPECT_EQ(verdicts[verdict], 4) << verdicts;
    }
    agent.end();
    EXPECT_TRUE(agent.process.err().contains(" 4 " + verdict)) << agent.process.err();
    for (const auto& target : routers)
        EXPECT_EQ(knock(hosts.client, target), Reply::connected) << target.address;
}

TEST_P(Router, ForwardsTheSameBytesOpenAndClosed) {
    const Capture capture(backend, backend_device);
    for (const auto& [target, from] : {std::pair(backends[0], Target{ClientHost::client_v4, 5000}),
                                       std::pair(backends[1], Target{ClientHost::client_v6, 5001})}) {
        const auto packet = syn(from, target);
        send_raw(hosts.client, target, packet);
        const auto open = capture.next_syn(from.port, 5s);
        ASSERT_TRUE(open) << target.address;
        Closed agent(gating(), environment());
        send_raw(hosts.client, target, packet);
        const auto closed = capture.next_syn(from.port, 5s);
        ASSERT_TRUE(closed) << target.address;
        EXPECT_EQ(*open, *closed) << target.address;
        // Besides its hop limit it is what was sent: the TCP header at least, byte for byte.
        EXPECT_TRUE(std::equal(packet.end() - 20, packet.end(), closed->end() - 20)) << target.address;
    }
}

INSTANTIATE_TEST_SUITE_P(Hooks, Router,
                         testing::Combine(testing::Values("tcx", "tc", "xdp", "nft", "legacy"),
                                          testing::Values("hold", "drop")),
                         [](const auto& of) {
                             return fmt::format("{}_{}", std::get<0>(of.param), std::get<1>(of.param));
                         });

} // namespace syngate::live::robust
