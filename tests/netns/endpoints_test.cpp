// SPDX-License-Identifier: GPL-2.0-or-later
// The gate follows the host's interfaces and addresses, and does without what the place lacks.
#include "netns/robust_agent.hpp"
#include "netns/robust_frames.hpp"

#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;
using Names = std::set<std::string>;

constexpr std::uint16_t port = 80;
const Target at_server{ClientHost::server_v4, port};

class Endpoints : public testing::TestWithParam<const char*> {
protected:
    [[nodiscard]] Argv gating() const { return {"--ports", "80", "--hook", GetParam()}; }
    ClientHost hosts;
    const Listener server{port};
};

void ip(const Argv& arguments) {
    Argv argv{"ip"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    must_run(argv);
}

// An interface that came while the gate was closed is gated from its first address on.
bool is_gated_soon(const Namespace& from, const Target& target) {
    return wait_until([&] { return knock(from, target, 50ms) == Reply::silent; }, 5s);
}

} // namespace

TEST_P(Endpoints, ComeWhileTheGateIsClosed) {
    Closed agent(gating());
    const Namespace other;
    connect_by_veth({hosts.server, "late0", "10.99.0.1/24", "fd00:99::1/64"},
                    {other, "late1", "10.99.0.2/24", "fd00:99::2/64"});
    EXPECT_TRUE(is_gated_soon(other, {"10.99.0.1", port}));
    EXPECT_TRUE(is_gated_soon(other, {"fd00:99::1", port}));
    EXPECT_EQ(agent.interfaces(), (Names{"lo", ClientHost::server_device, "late0"}));
    agent.end();
    EXPECT_EQ(knock(other, {"10.99.0.1", port}), Reply::connected);
    ip({"link", "delete", "late0"});
}

TEST_P(Endpoints, GoWithTheirLastAddressAndWithTheirDevice) {
    const auto before = traffic_control();
    const Namespace other;
    connect_by_veth({hosts.server, "early0", "10.99.0.1/24", ""}, {other, "early1", "10.99.0.2/24", ""});
    ip({"address", "flush", "dev", "early0", "scope", "link"}); // the IPv6 one that it made itself
    Closed agent(gating());
    EXPECT_EQ(agent.interfaces(), (Names{"lo", ClientHost::server_device, "early0"}));
    ip({"address", "delete", "10.99.0.1/24", "dev", "early0"});
    EXPECT_TRUE(wait_until([&] { return agent.interfaces() == Names{"lo", ClientHost::server_device}; }, 5s));
    ip({"address", "add", "10.99.0.1/24", "dev", "early0"});
    EXPECT_TRUE(is_gated_soon(other, {"10.99.0.1", port}));
    ip({"link", "delete", "early0"});
    EXPECT_TRUE(wait_until([&] { return agent.interfaces() == Names{"lo", ClientHost::server_device}; }, 5s));
    EXPECT_EQ(knock(hosts.client, at_server), Reply::silent);
    agent.end();
    EXPECT_EQ(traffic_control(), before);
    EXPECT_EQ(agent.process.err().find("error"), std::string::npos) << agent.process.err();
}

TEST_P(Endpoints, AreFollowedThroughARename) {
    const auto before = traffic_control();
    Closed agent(gating());
    ip({"link", "set", ClientHost::server_device, "down"});
    ip({"link", "set", ClientHost::server_device, "name", "renamed0"});
    ip({"link", "set", "renamed0", "up"});
    EXPECT_TRUE(wait_until([&] { return agent.interfaces() == Names{"lo", "renamed0"}; }, 5s));
    EXPECT_EQ(knock(hosts.client, at_server), Reply::silent);
    agent.end();
    ip({"link", "set", "renamed0", "down"});
    ip({"link", "set", "renamed0", "name", ClientHost::server_device});
    ip({"link", "set", ClientHost::server_device, "up"});
    EXPECT_EQ(traffic_control(), before);
}

INSTANTIATE_TEST_SUITE_P(Hooks, Endpoints, testing::Values("tcx", "tc", "xdp"),
                         [](const auto& of) { return std::string(of.param); });

// No link-layer header: the frame begins with the IP header, and is replayed all the same. Also of one that
// comes late, when the agent has given up what it need not have, and its program is loaded only then.
TEST(Tun, HoldsAndReplaysWithoutEthernet) {
    const Listener server(port);
    nlohmann::json addresses;
    for (const auto& [hook, late] : {std::pair{"tcx", false}, {"tc", false}, {"tcx", true}, {"tc", true}}) {
        std::optional<Tun> device;
        const auto appear = [&] {
            device.emplace("tun0", std::vector<std::string>{"10.66.0.1/24", "fd00:66::1/64"});
        };
        if (!late)
            appear();
        Closed agent({"--ports", "80", "--hook", hook});
        const auto known = [&] { return agent.ask("status")["gate"]["local_addresses"]; };
        if (late)
            appear();
        else
            addresses = known();
        ASSERT_TRUE(
            wait_until([&] { return agent.interfaces().contains("tun0") && known() == addresses; }, 5s))
            << agent.process.err();
        Tun& tun = *device;
        const auto v4 = syn({"10.66.0.2", 4000}, {"10.66.0.1", port});
        const auto v6 = syn({"fd00:66::2", 4001}, {"fd00:66::1", port});
        const auto open_port = syn({"10.66.0.2", 4002}, {"10.66.0.1", 9}); // refused, but not by us
        tun.write(v4);
        tun.write(v6);
        tun.write(open_port);
        const auto refused = tun.read_tcp(5s);
        ASSERT_TRUE(refused);
        EXPECT_EQ(refused->destination_port, 4002) << hook; // the held ones have not been answered
        EXPECT_EQ(agent.ask("status")["gate"]["verdicts"]["parked"], 2);
        agent.end();
        std::set<std::uint16_t> answered;
        for (int i = 0; i < 2; ++i)
            if (const auto reply = tun.read_tcp(5s); reply && reply->is_syn_ack)
                answered.insert(reply->destination_port);
        EXPECT_EQ(answered, (std::set<std::uint16_t>{4000, 4001})) << hook << agent.process.err();
    }
}

// The gated port says nothing, the other one refuses.
void expect_gated(const Tun& tun) {
    tun.write(syn({"10.66.0.2", 4000}, {"10.66.0.1", port}));
    tun.write(syn({"10.66.0.2", 4001}, {"10.66.0.1", 9}));
    const auto refused = tun.read_tcp(5s);
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->destination_port, 4001);
}

TEST(Tun, IsGatedByTcWhereXdpIsAskedFor) {
    const Tun tun("tun0", {"10.66.0.1/24"});
    const auto before = traffic_control();
    const Listener server(port);
    Closed agent({"--ports", "80", "--hook", "xdp"});
    std::string hook;
    const auto status = agent.ask("status");
    for (const auto& each : status.at("gate").at("interfaces"))
        if (each["name"] == "tun0")
            hook = each["hook"];
    EXPECT_TRUE(hook == "tcx" || hook == "tc") << hook;
    expect_gated(tun);
    agent.end();
    EXPECT_EQ(traffic_control(), before);
}

// Its program is another instance, with one map less.
TEST(Tun, IsGatedWhereNothingCanBeHeld) {
    const Tun tun("tun0", {"10.66.0.1/24"});
    const Listener server(port);
    Closed agent({"--ports", "80", "--mode", "bpf"}, {.extra_env = {{"SYNGATE_NO_FEATURE", "live_frames"}}});
    expect_gated(tun);
    agent.end();
}

// A container without bpffs: everything but the maps' names works.
TEST(Bpffs, IsNotNeeded) {
    const ClientHost hosts;
    const Listener server(port);
    const auto control = scratch() + "/no-bpffs.sock";
    Process agent(
        {"unshare", "--mount", "sh", "-c",
         fmt::format("mount -t tmpfs none /sys/fs/bpf && exec {} exec --control {} --ports 80 -- sleep 60",
                     built("syngate"), control)});
    ASSERT_TRUE(wait_until([&] { return knock(hosts.client, at_server, 30ms) == Reply::silent; }))
        << agent.err();
    EXPECT_NE(agent.err().find("is not on a mounted bpffs"), std::string::npos) << agent.err();
    const auto status = cli({"status", "--control", control});
    EXPECT_NE(status.out.find("\npins     none: /sys/fs/bpf/syngate is not on a mounted bpffs"),
              std::string::npos)
        << status.out << status.err;
    EXPECT_EQ(pins(), std::set<std::string>{});
}

TEST(Bpffs, MayBeElsewhere) {
    const ClientHost hosts;
    const auto mount = scratch() + "/bpf";
    must_run({"mkdir", "-p", mount});
    must_run({"mount", "-t", "bpf", "bpf", mount});
    {
        const Listener server(port);
        Closed agent({"--ports", "80", "--bpffs", mount + "/mine"});
        const std::string path = agent.ask("status")["gate"]["pins"];
        EXPECT_TRUE(path.starts_with(mount + "/mine/")) << path;
        EXPECT_TRUE(pins(mount).contains(path + "/gate"));
        EXPECT_EQ(pins(), std::set<std::string>{});
        agent.end();
        EXPECT_EQ(pins(mount), std::set<std::string>{});
        Closed dying({"--ports", "80", "--bpffs", mount + "/mine"});
        dying.kill();
        EXPECT_NE(pins(mount), std::set<std::string>{});
        EXPECT_TRUE(cli({"cleanup", "--bpffs", mount + "/mine"}).ok());
        EXPECT_EQ(pins(mount), std::set<std::string>{});
    }
    must_run({"umount", mount});
}

TEST(Pins, AreReadByBpftoolWithTheirFieldsNames) {
    const ClientHost hosts;
    const Listener server(port);
    Closed agent({"--ports", "80,443"});
    ASSERT_EQ(knock(hosts.client, at_server), Reply::silent);
    const std::string directory = agent.ask("status")["gate"]["pins"];
    const auto dump = [&](const char* map) {
        const auto text = must_run({"bpftool", "-j", "map", "dump", "pinned", directory + "/" + map});
        return nlohmann::json::parse(text);
    };
    std::set<int> ports;
    const auto ports_map = dump("ports");
    for (const auto& each : ports_map) {
        ports.insert(each["formatted"]["key"].get<int>());
        EXPECT_TRUE(each["formatted"]["value"].contains("policy"));
    }
    EXPECT_EQ(ports, (std::set<int>{80, 443}));
    const auto gate = dump("gate")[0]["formatted"]["value"];
    EXPECT_EQ(gate["owner_pid"], agent.process.pid());
    EXPECT_GT(gate["closed_until_ns"], gate["closed_at_ns"]);
    const auto verdicts = dump("verdicts")[0]["formatted"]["values"];
    int parked = 0;
    for (const auto& each : verdicts)
        parked += each["value"]["parked"].get<int>();
    EXPECT_EQ(parked, 1) << verdicts;
    Names names;
    const auto interfaces_map = dump("interfaces");
    for (const auto& each : interfaces_map) {
        std::string name;
        for (const auto& c : each["formatted"]["value"]["name"])
            if (c.is_string() && c.get<std::string>().size() == 1)
                name += c.get<std::string>();
        names.insert(each["formatted"]["value"]["name"].is_string()
                         ? each["formatted"]["value"]["name"].get<std::string>()
                         : name);
    }
    EXPECT_EQ(names, (Names{"lo", ClientHost::server_device})) << interfaces_map.dump();
    EXPECT_FALSE(dump("local_addresses").empty());
    agent.end();
}

} // namespace syngate::live::robust
