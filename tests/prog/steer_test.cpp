// SPDX-License-Identifier: GPL-2.0-or-later
// Which socket the sk_lookup program chooses, and the reason that it counts, by BPF_PROG_RUN on real
// listening sockets. Nothing is attached.
#include "base/fd.hpp"
#include "net/sock_diag.hpp"
#include "prog/world.hpp"
#include "steer/socket_capture.hpp"
#include "steer/steer_maps.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <map>
#include <netinet/in.h>
#include <sys/socket.h>

namespace syngate::prog {
namespace {

constexpr std::uint32_t generation = 5;

const char* name_of(unsigned reason) {
    static constexpr const char* names[] = {
#define SYNGATE_NAME(name, meaning) #name,
        SYNGATE_STEER_REASONS(SYNGATE_NAME)
#undef SYNGATE_NAME
    };
    return reason < SYNGATE_STEER_REASON_COUNT ? names[reason] : "none";
}

ListenAddress at(const std::string& address, std::uint16_t port) {
    ListenAddress result{.port = port};
    result.ipv6 = address.find(':') != address.npos;
    EXPECT_EQ(inet_pton(result.ipv6 ? AF_INET6 : AF_INET, address.c_str(), result.address.data()), 1);
    return result;
}

struct Chosen {
    std::string reason;
    std::uint64_t cookie = 0; // of the socket; 0: by the kernel's own rules
};

struct SteerTest : testing::Test {
    std::unique_ptr<Sockets> sock_diag;
    std::unique_ptr<SteerMaps> maps;
    std::map<std::uint64_t, Fd> listening; // by cookie
    std::uint16_t from_port = 1024;

    void SetUp() override {
        if (const auto r = enter_world(); !r) {
            if (r.error().exit == Exit::impossible)
                GTEST_SKIP() << r.error().message;
            FAIL() << r.error().message;
        }
        sock_diag = *open_sock_diag();
        auto loaded = SteerMaps::load(1);
        ASSERT_TRUE(loaded) << loaded.error().message;
        maps = std::move(*loaded);
    }

    Listener listen_on(const std::string& address, std::uint16_t port, bool ipv6_only = false) {
        const ListenAddress where = at(address, port);
        Fd fd(socket(where.ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        const int on = 1, only = ipv6_only ? 1 : 0;
        setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
        sockaddr_in6 six{};
        sockaddr_in four{};
        if (where.ipv6) {
            setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
            six.sin6_family = AF_INET6;
            six.sin6_port = htons(port);
            std::memcpy(&six.sin6_addr, where.address.data(), 16);
        } else {
            four.sin_family = AF_INET;
            four.sin_port = htons(port);
            std::memcpy(&four.sin_addr, where.address.data(), 4);
        }
        const int bound = where.ipv6 ? bind(fd.get(), reinterpret_cast<sockaddr*>(&six), sizeof(six))
                                     : bind(fd.get(), reinterpret_cast<sockaddr*>(&four), sizeof(four));
        EXPECT_EQ(bound, 0) << strerror(errno);
        EXPECT_EQ(listen(fd.get(), 8), 0) << strerror(errno);
        const auto known = [&](const Listener& l) { return listening.contains(l.cookie); };
        auto all = *sock_diag->listeners();
        std::erase_if(all, known);
        EXPECT_EQ(all.size(), 1U);
        listening.emplace(all.front().cookie, std::move(fd));
        return all.front();
    }

    void rule(const ListenAddress& where, const std::vector<Listener>& to, std::uint32_t first_slot = 0,
              std::uint32_t of = generation) {
        std::vector<CaptureWant> wants;
        for (std::uint32_t i = 0; i < to.size(); ++i)
            wants.push_back({to[i], first_slot + i});
        const auto captured = capture_listeners(*maps, wants);
        ASSERT_TRUE(captured) << captured.error().message;
        const auto set = maps->set_rule(
            of, where, {.first_slot = first_slot, .sockets = static_cast<std::uint32_t>(to.size())});
        ASSERT_TRUE(set) << set.error().message;
    }

    Chosen look_up(const std::string& local, std::uint16_t port, std::uint32_t protocol = IPPROTO_TCP) {
        const ListenAddress where = at(local, port);
        bpf_sk_lookup context{};
        context.family = where.ipv6 ? AF_INET6 : AF_INET;
        context.protocol = protocol;
        context.remote_port = htons(++from_port);
        context.local_port = port;
        if (where.ipv6) {
            std::memcpy(context.local_ip6, where.address.data(), 16);
            EXPECT_EQ(inet_pton(AF_INET6, "2001:db8::99", context.remote_ip6), 1);
        } else {
            std::memcpy(&context.local_ip4, where.address.data(), 4);
            context.remote_ip4 = htonl(0x0a000063);
        }
        const auto before = maps->verdicts();
        LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &context, .ctx_out = &context,
                    .ctx_size_in = sizeof(context), .ctx_size_out = sizeof(context), .repeat = 1);
        EXPECT_EQ(bpf_prog_test_run_opts(maps->lookup_program(), &options), 0) << strerror(errno);
        EXPECT_EQ(options.retval, 1U); // SK_PASS, whatever it says
        const auto after = maps->verdicts();
        Chosen chosen{.reason = "none", .cookie = context.cookie};
        for (unsigned i = 0; i < SYNGATE_STEER_REASON_COUNT; ++i) {
            const auto counted =
                reinterpret_cast<const __u64*>(&after)[i] - reinterpret_cast<const __u64*>(&before)[i];
            if (counted == 1 && chosen.reason == "none")
                chosen.reason = name_of(i);
            else
                EXPECT_EQ(counted, 0U) << name_of(i);
        }
        return chosen;
    }
    void expect(const Chosen& chosen, const std::string& reason, std::uint64_t cookie = 0) {
        EXPECT_EQ(chosen.reason, reason);
        EXPECT_EQ(chosen.cookie, cookie);
    }
};

TEST_F(SteerTest, NothingIsSteeredUntilAGenerationHolds) {
    const auto l = listen_on("0.0.0.0", 80);
    rule(at("0.0.0.0", 80), {l});
    expect(look_up("10.0.0.1", 80), "idle");
    maps->activate(generation);
    expect(look_up("10.0.0.1", 80), "steered", l.cookie);
    maps->activate(0);
    expect(look_up("10.0.0.1", 80), "idle");
}

TEST_F(SteerTest, OneStoreChangesTheGeneration) {
    const auto old_one = listen_on("0.0.0.0", 80), new_one = listen_on("0.0.0.0", 80);
    const auto six = listen_on("::", 443, true), new_six = listen_on("::", 443, true);
    rule(at("0.0.0.0", 80), {old_one}, 0, 1);
    rule(at("::", 443), {six}, 1, 1);
    rule(at("0.0.0.0", 80), {new_one}, 2, 2);
    rule(at("::", 443), {new_six}, 3, 2);
    maps->activate(1);
    expect(look_up("10.0.0.1", 80), "steered", old_one.cookie);
    expect(look_up("2001:db8::1", 443), "steered", six.cookie);
    maps->activate(2);
    expect(look_up("10.0.0.1", 80), "steered", new_one.cookie);
    expect(look_up("2001:db8::1", 443), "steered", new_six.cookie);
}

TEST_F(SteerTest, OtherPortsProtocolsAndFamiliesGoTheirWay) {
    const auto l = listen_on("0.0.0.0", 80);
    rule(at("0.0.0.0", 80), {l});
    maps->activate(generation);
    expect(look_up("10.0.0.1", 81), "no_rule");
    expect(look_up("2001:db8::1", 80), "no_rule");
    expect(look_up("10.0.0.1", 80, IPPROTO_UDP), "not_tcp");
}

TEST_F(SteerTest, TheExactAddressGoesBeforeEveryAddress) {
    for (const auto& [any, exact, other] :
         {std::tuple{"0.0.0.0", "10.0.0.1", "10.0.0.2"}, std::tuple{"::", "2001:db8::1", "2001:db8::2"}}) {
        const auto wide = listen_on(any, 80, true), narrow = listen_on(exact, 80, true);
        rule(at(any, 80), {wide}, 0);
        rule(at(exact, 80), {narrow}, 1);
        maps->activate(generation);
        expect(look_up(exact, 80), "steered", narrow.cookie);
        expect(look_up(other, 80), "steered", wide.cookie);
    }
}

TEST_F(SteerTest, AnAddressMayBeExempt) {
    const auto l = listen_on("0.0.0.0", 80);
    rule(at("0.0.0.0", 80), {l});
    rule(at("10.0.0.2", 80), {});
    maps->activate(generation);
    expect(look_up("10.0.0.2", 80), "exempt");
    expect(look_up("10.0.0.1", 80), "steered", l.cookie);
}

TEST_F(SteerTest, ADualStackSocketTakesBothFamilies) {
    const auto l = listen_on("::", 80);
    rule(at("::", 80), {l}, 0);
    rule(at("0.0.0.0", 80), {l}, 1); // the same socket in a second slot
    maps->activate(generation);
    expect(look_up("2001:db8::1", 80), "steered", l.cookie);
    expect(look_up("10.0.0.1", 80), "steered", l.cookie);
}

// Who made the rules was wrong; the connection goes by the kernel's own.
TEST_F(SteerTest, ASocketOfTheWrongFamilyIsRefused) {
    const auto l = listen_on("::", 80, true);
    rule(at("0.0.0.0", 80), {l});
    maps->activate(generation);
    expect(look_up("10.0.0.1", 80), "refused");
}

TEST_F(SteerTest, ConnectionsAreSpreadOverAllSockets) {
    std::vector<Listener> shards;
    for (int i = 0; i < 4; ++i)
        shards.push_back(listen_on("0.0.0.0", 80));
    rule(at("0.0.0.0", 80), shards, 7);
    maps->activate(generation);
    std::map<std::uint64_t, int> hits;
    for (int i = 0; i < 4000; ++i)
        ++hits[look_up("10.0.0.1", 80).cookie];
    ASSERT_EQ(hits.size(), shards.size());
    for (const auto& [cookie, times] : hits) {
        EXPECT_TRUE(listening.contains(cookie));
        EXPECT_NEAR(times, 1000, 200);
    }
    EXPECT_EQ(maps->rule(generation, at("0.0.0.0", 80)).steered, 4000U);
}

TEST_F(SteerTest, TheNextSocketStandsInForOneThatIsClosed) {
    const auto first = listen_on("0.0.0.0", 80), second = listen_on("0.0.0.0", 80);
    rule(at("0.0.0.0", 80), {first, second});
    maps->activate(generation);
    listening.erase(first.cookie);
    EXPECT_EQ(maps->cookie_in(0), 0U);
    for (int i = 0; i < 50; ++i)
        expect(look_up("10.0.0.1", 80), "steered", second.cookie);
    listening.erase(second.cookie);
    expect(look_up("10.0.0.1", 80), "no_listener");
    EXPECT_EQ(maps->rule(generation, at("0.0.0.0", 80)).no_listener, 1U);
}

TEST_F(SteerTest, CaptureTakesTheSocketThatIsMeant) {
    std::vector<Listener> shards;
    for (int i = 0; i < 8; ++i)
        shards.push_back(listen_on("10.0.0.1", 80));
    // What is steered now does not stand in the way.
    const auto link = maps->attach();
    ASSERT_TRUE(link) << link.error().message;
    rule(at("10.0.0.1", 80), {shards[0]});
    maps->activate(generation);
    for (std::uint32_t i = 0; i < 8; ++i) {
        ASSERT_TRUE(capture_listeners(*maps, {{shards[i], 100 + i}}));
        EXPECT_EQ(maps->cookie_in(100 + i), shards[i].cookie);
    }
    EXPECT_GT(maps->verdicts().own_lookup, 0U);
    EXPECT_EQ(maps->verdicts().steered, 0U);
}

TEST_F(SteerTest, CaptureTellsListenersOnOneAddressFromThoseOnEveryAddress) {
    const auto one = listen_on("10.0.0.1", 80), every = listen_on("0.0.0.0", 80);
    const auto six = listen_on("2001:db8::1", 80), every_six = listen_on("::", 80, true);
    const std::vector<Listener> all{every, one, every_six, six};
    std::vector<CaptureWant> wants;
    for (std::uint32_t i = 0; i < all.size(); ++i)
        wants.push_back({all[i], i});
    const auto captured = capture_listeners(*maps, wants);
    ASSERT_TRUE(captured) << captured.error().message;
    for (std::uint32_t i = 0; i < all.size(); ++i)
        EXPECT_EQ(maps->cookie_in(i), all[i].cookie);
}

TEST_F(SteerTest, CaptureNamesTheListenerThatIsGone) {
    const auto stays = listen_on("10.0.0.1", 80), goes = listen_on("10.0.0.1", 8443);
    listening.erase(goes.cookie);
    const auto captured = capture_listeners(*maps, {{stays, 0}, {goes, 1}});
    ASSERT_FALSE(captured);
    EXPECT_NE(captured.error().message.find("10.0.0.1:8443"), std::string::npos) << captured.error().message;
}

} // namespace
} // namespace syngate::prog
