// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/address_watch.hpp"

#include "net/address_read.hpp"
#include "unit/net_namespace.hpp"
#include "unit/net_rtnl.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;
using test::in_namespace;
using test::Rtnl;
using test::set_up;

LocalPrefix prefix(const std::string& text, unsigned bits) {
    LocalPrefix p;
    if (::inet_pton(AF_INET6, text.c_str(), p.address.data()) == 1) {
        p.bits = bits;
        return p;
    }
    p.address[10] = p.address[11] = 0xff;
    EXPECT_EQ(::inet_pton(AF_INET, text.c_str(), p.address.data() + 12), 1) << text;
    p.bits = bits + 96;
    return p;
}

// A watch with its loop; every picture that it reports differs from the one before.
class Watched {
public:
    Watched() : loop_(*Loop::make()) {
        auto watch = AddressWatch::start(*loop_, [this](const Addresses& addresses) {
            EXPECT_NE(addresses, last_);
            EXPECT_EQ(&addresses, &watch_->now());
            last_ = addresses;
            ++calls_;
        });
        EXPECT_TRUE(watch) << watch.error().message;
        watch_ = std::move(*watch);
        last_ = watch_->now();
    }
    bool until(const std::function<bool()>& done) { return loop_->run_until(done, Clock::now() + 5s); }
    // Whatever was announced so far is taken in.
    void settle() {
        int turns = 0;
        loop_->run_until([&] { return ++turns > 8; }, Clock::now() + 5s, 1ms);
    }
    [[nodiscard]] const Addresses& now() const { return watch_->now(); }
    [[nodiscard]] bool local(const std::string& text, unsigned bits) const {
        return now().local.contains(prefix(text, bits));
    }
    [[nodiscard]] const Endpoint* endpoint(const std::string& name) const {
        for (const auto& [ifindex, endpoint] : now().endpoints)
            if (endpoint.name == name)
                return &endpoint;
        return nullptr;
    }
    [[nodiscard]] int calls() const { return calls_; }

private:
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<AddressWatch> watch_;
    Addresses last_;
    int calls_ = 0;
};

TEST(AddressWatch, KnowsLoopbackFromTheStart) {
    in_namespace([] {
        const Watched watched;
        ASSERT_EQ(watched.now().endpoints.size(), 1U);
        ASSERT_TRUE(watched.endpoint("lo"));
        EXPECT_EQ(watched.endpoint("lo")->ifindex, ::if_nametoindex("lo"));
        EXPECT_TRUE(watched.endpoint("lo")->ethernet);
        EXPECT_TRUE(watched.local("127.0.0.0", 8));
        EXPECT_TRUE(watched.local("127.0.0.1", 32));
        EXPECT_TRUE(watched.local("::1", 128));
        // Broadcast, anycast and multicast routes stand in the same table.
        EXPECT_EQ(watched.now().local.size(), 3U);
    });
}

TEST(AddressWatch, LoopbackWithoutAnAddressIsAnEndpoint) {
    in_namespace([] {
        Rtnl rtnl;
        rtnl.remove_address("lo", "127.0.0.1", 8);
        rtnl.remove_address("lo", "::1", 128);
        const Watched watched;
        EXPECT_TRUE(watched.endpoint("lo"));
        EXPECT_TRUE(watched.now().local.empty());
    });
}

TEST(AddressWatch, FollowsInterfacesAndAddresses) {
    in_namespace([] {
        Watched watched;
        Rtnl rtnl;
        rtnl.add_veth("left", "right");
        watched.settle();
        EXPECT_FALSE(watched.endpoint("left"));
        EXPECT_EQ(watched.calls(), 0) << "an interface without an address is no change";

        rtnl.add_address("left", "192.0.2.1", 24);
        ASSERT_TRUE(watched.until([&] { return watched.endpoint("left"); }));
        EXPECT_TRUE(watched.endpoint("left")->ethernet);
        EXPECT_FALSE(watched.endpoint("right"));
        set_up("left");
        ASSERT_TRUE(watched.until([&] { return watched.local("192.0.2.1", 32); }));
        EXPECT_FALSE(watched.local("192.0.2.255", 32)) << "a broadcast address";

        rtnl.add_address("left", "192.0.2.2", 24);
        ASSERT_TRUE(watched.until([&] { return watched.local("192.0.2.2", 32); }));
        rtnl.remove_address("left", "192.0.2.2", 24);
        ASSERT_TRUE(watched.until([&] { return !watched.local("192.0.2.2", 32); }));
        EXPECT_TRUE(watched.local("192.0.2.1", 32));

        rtnl.remove_link("left");
        ASSERT_TRUE(watched.until([&] { return !watched.endpoint("left"); }));
        EXPECT_FALSE(watched.local("192.0.2.1", 32));
    });
}

TEST(AddressWatch, CountsTentativeAddresses) {
    in_namespace([] {
        Watched watched;
        Rtnl rtnl;
        rtnl.add_veth("left", "right");
        rtnl.add_address("left", "2001:db8::1", 64); // tentative for as long as the interface is down
        ASSERT_TRUE(watched.until([&] { return watched.local("2001:db8::1", 128); }));
        EXPECT_TRUE(watched.endpoint("left"));
        rtnl.remove_address("left", "2001:db8::1", 64);
        ASSERT_TRUE(watched.until([&] { return !watched.local("2001:db8::1", 128); }));
        EXPECT_FALSE(watched.endpoint("left"));
    });
}

TEST(AddressWatch, NoticesLocalRoutesInBothTables) {
    in_namespace([] {
        Watched watched;
        Rtnl rtnl;
        for (const std::uint8_t table : {RT_TABLE_LOCAL, RT_TABLE_MAIN}) {
            for (const auto& [text, bits] : {std::pair{"10.9.0.0", 16}, std::pair{"fd09::", 64}}) {
                const auto width = static_cast<std::uint8_t>(bits);
                rtnl.route(true, RTN_LOCAL, table, text, width, "lo");
                ASSERT_TRUE(watched.until([&] { return watched.local(text, width); })) << text;
                rtnl.route(false, RTN_LOCAL, table, text, width, "lo");
                ASSERT_TRUE(watched.until([&] { return !watched.local(text, width); })) << text;
            }
        }
        const int before = watched.calls();
        rtnl.route(true, RTN_UNICAST, RT_TABLE_MAIN, "10.10.0.0", 16, "lo");
        rtnl.route(true, RTN_LOCAL, 100, "10.11.0.0", 16, "lo"); // for marked packets only
        watched.settle();
        EXPECT_EQ(watched.calls(), before);
    });
}

TEST(AddressWatch, TellsTheAddressesOfAVrfApart) {
    in_namespace([] {
        Rtnl rtnl;
        if (const auto made = rtnl.add_vrf("red", 10); !made)
            GTEST_SKIP() << "this kernel has no VRFs: " << made.error().message;
        Watched watched;
        rtnl.add_veth("left", "right");
        rtnl.set_master("left", "red");
        set_up("red");
        set_up("left");
        rtnl.add_address("left", "192.0.2.1", 24);
        ASSERT_TRUE(
            watched.until([&] { return watched.now().local_in_vrf.contains(prefix("192.0.2.1", 32)); }));
        EXPECT_TRUE(watched.endpoint("left"));
        EXPECT_FALSE(watched.local("192.0.2.1", 32));
        rtnl.add_address("lo", "192.0.2.1", 32);
        ASSERT_TRUE(watched.until([&] { return watched.local("192.0.2.1", 32); }));
        EXPECT_FALSE(watched.now().local_in_vrf.contains(prefix("192.0.2.1", 32))) << "local anyway";
    });
}

// Without a VRF, which not every kernel has: its table, and what becomes of its routes.
TEST(AddressWatch, ReadsTheTablesOfVrfs) {
    in_namespace([] {
        Rtnl rtnl;
        rtnl.route(true, RTN_LOCAL, 100, "10.11.0.0", 16, "lo");
        rtnl.route(true, RTN_LOCAL, 100, "fd11::", 64, "lo");
        rtnl.route(true, RTN_UNICAST, 100, "10.12.0.0", 16, "lo");
        auto netlink = *Netlink::open(NETLINK_ROUTE);
        Links links;
        links[7].vrf_table = 100;
        links[8].endpoint.name = "none";
        EXPECT_EQ(vrf_tables(links), std::set<std::uint32_t>{100});
        const auto routes = read_local_routes(netlink, vrf_tables(links));
        ASSERT_TRUE(routes) << routes.error().message;
        EXPECT_EQ(*routes, (std::set<LocalPrefix>{prefix("10.11.0.0", 16), prefix("fd11::", 64)}));
        const auto none = read_local_routes(netlink, {5000});
        ASSERT_TRUE(none) << none.error().message;
        EXPECT_TRUE(none->empty());
    });
    const std::set<LocalPrefix> here{prefix("10.0.0.0", 8)};
    const std::set<LocalPrefix> in_vrf{prefix("10.11.0.0", 16), prefix("11.0.0.1", 32), prefix("0.0.0.0", 0)};
    EXPECT_EQ(combine({}, {}, here, in_vrf).local_in_vrf,
              (std::set<LocalPrefix>{prefix("11.0.0.1", 32), prefix("0.0.0.0", 0)}));
}

TEST(AddressWatch, NoticesWhetherTheTableLocalIsAskedFirst) {
    in_namespace([] {
        Watched watched;
        EXPECT_TRUE(watched.now().local_first);
        Rtnl rtnl;
        for (const std::uint8_t family : ip_families) {
            rtnl.rule(true, family, 5, RT_TABLE_MAIN);
            watched.settle();
            EXPECT_TRUE(watched.now().local_first) << "behind it";
            rtnl.rule(false, family, 0, RT_TABLE_LOCAL);
            ASSERT_TRUE(watched.until([&] { return !watched.now().local_first; }));
            rtnl.rule(true, family, 1, RT_TABLE_LOCAL);
            ASSERT_TRUE(watched.until([&] { return watched.now().local_first; }));
        }
    });
}

TEST(AddressWatch, LeavesOutThePortsOfABridge) {
    in_namespace([] {
        Watched watched;
        Rtnl rtnl;
        rtnl.add_bridge("bridge");
        rtnl.add_veth("left", "right");
        rtnl.add_address("left", "192.0.2.1", 24);
        ASSERT_TRUE(watched.until([&] { return watched.endpoint("left"); }));
        rtnl.set_master("left", "bridge");
        ASSERT_TRUE(watched.until([&] { return !watched.endpoint("left"); }));
        rtnl.add_address("bridge", "192.0.2.2", 24);
        ASSERT_TRUE(watched.until([&] { return watched.endpoint("bridge"); }));
    });
}

TEST(AddressWatch, ATunnelHasNoEthernetHeader) {
    in_namespace([] {
        const Fd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
        if (!tun)
            GTEST_SKIP() << "needs /dev/net/tun";
        ifreq request{};
        std::string("layer3").copy(request.ifr_name, IFNAMSIZ - 1);
        request.ifr_flags = IFF_TUN | IFF_NO_PI;
        ASSERT_EQ(::ioctl(tun.get(), TUNSETIFF, &request), 0) << std::strerror(errno);
        Rtnl rtnl;
        rtnl.add_address("layer3", "192.0.2.1", 24);
        const Watched watched;
        ASSERT_TRUE(watched.endpoint("layer3"));
        EXPECT_FALSE(watched.endpoint("layer3")->ethernet);
    });
}

TEST(AddressWatch, ReadsAgainWhenNotificationsWereLost) {
    in_namespace([] {
        Rtnl rtnl;
        rtnl.add_bridge("bridge");
        rtnl.add_veth("left", "right");
        rtnl.add_address("left", "192.0.2.1", 24);
        Watched watched;
        ASSERT_TRUE(watched.endpoint("left"));
        for (int i = 0; i < 5000; ++i) { // overflows the queue, see NetlinkListener.SaysThatMessagesWereLost
            rtnl.add_address("lo", "10.0.0.1", 32);
            rtnl.remove_address("lo", "10.0.0.1", 32);
        }
        // Not announced any more, and nothing else tells of it: no address changes.
        rtnl.set_master("left", "bridge");
        ASSERT_TRUE(watched.until([&] { return !watched.endpoint("left"); }));
        EXPECT_FALSE(watched.local("10.0.0.1", 32));
        rtnl.add_address("lo", "10.0.0.2", 32); // and is awake for the next one
        ASSERT_TRUE(watched.until([&] { return watched.local("10.0.0.2", 32); }));
    });
}

} // namespace
} // namespace syngate
