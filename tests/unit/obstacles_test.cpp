// SPDX-License-Identifier: GPL-2.0-or-later
#include "route/obstacles.hpp"

#include "unit/server_test_support.hpp"

namespace syngate {
namespace {

struct Obstacles : testing::Test {
    test::TempDir directory;
    void write(const std::string& name, const std::string& text) const {
        std::filesystem::create_directories((directory / name).parent_path());
        directory.write(name, text);
    }
    [[nodiscard]] std::string found(const std::vector<std::string>& interfaces = {"eth0", "eth1"}) const {
        std::string names;
        for (const auto& each :
             find_obstacles(interfaces, {.sysctls = directory / "net", .devices = directory / "class"})) {
            EXPECT_FALSE(each.text.empty());
            names += (names.empty() ? "" : " ") + each.what;
        }
        return names;
    }
};

TEST_F(Obstacles, AreNoneWhereNothingIsSet) {
    EXPECT_EQ(found(), "");
    write("net/ipv4/conf/eth0/rp_filter", "0\n");
    write("net/ipv4/conf/all/rp_filter", "2\n");
    write("net/ipv4/conf/eth0/src_valid_mark", "0\n");
    write("net/ipv4/tcp_fwmark_accept", "0\n");
    write("net/bridge/bridge-nf-call-iptables", "0\n");
    write("class/eth0/uevent", "INTERFACE=eth0\nDEVTYPE=vlan\n");
    EXPECT_EQ(found(), "");
}

TEST_F(Obstacles, SrcValidMarkOfADeviceOrOfAll) {
    write("net/ipv4/conf/eth1/src_valid_mark", "1\n");
    EXPECT_EQ(found(), "net.ipv4.conf.eth1.src_valid_mark");
    write("net/ipv4/conf/all/src_valid_mark", "1\n");
    EXPECT_EQ(found({"eth0"}), "net.ipv4.conf.eth0.src_valid_mark");
    write("net/ipv4/conf/eth0/accept_local", "1\n");
    EXPECT_EQ(found({"eth0"}), "") << "a local source is accepted there";
}

TEST_F(Obstacles, StrictRpFilterAsTheKernelCombinesIt) {
    write("net/ipv4/conf/all/rp_filter", "1\n");
    EXPECT_EQ(found({"eth0"}), "net.ipv4.conf.eth0.rp_filter");
    write("net/ipv4/conf/eth0/rp_filter", "2\n");
    EXPECT_EQ(found({"eth0"}), "") << "loose is the greater";
}

TEST_F(Obstacles, NetkitFwmarkAcceptAndBridges) {
    write("class/eth0/uevent", "DEVTYPE=netkit\nINTERFACE=eth0\n");
    write("net/ipv4/tcp_fwmark_accept", "1\n");
    write("net/bridge/bridge-nf-call-ip6tables", "1\n");
    EXPECT_EQ(found(), "eth0 net.ipv4.tcp_fwmark_accept net.bridge.bridge-nf-call-ip6tables");
}

} // namespace
} // namespace syngate
