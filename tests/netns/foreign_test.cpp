// SPDX-License-Identifier: GPL-2.0-or-later
// Invariants 2 and 3: what others have put on an interface stays, and goes on seeing every packet that
// passes.
#include "netns/robust_agent.hpp"
#include "netns/robust_bpf.hpp"

#include <array>
#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace syngate::live::robust {

namespace {

constexpr std::uint16_t port = 80;
constexpr std::uint16_t other_port = 81;
constexpr auto device = ClientHost::server_device;

void tc(const Argv& arguments) {
    Argv argv{"tc"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    must_run(argv);
}

// Filters before, at and behind the preference that a gate takes; one that is no bpf filter.
class Foreigners {
public:
    enum class Qdisc { clsact, ingress };
    explicit Foreigners(Qdisc qdisc = Qdisc::clsact) {
        if (qdisc == Qdisc::clsact)
            tc({"qdisc", "add", "dev", device, "clsact"});
        else
            tc({"qdisc", "add", "dev", device, "ingress"});
        tc({"filter", "add", "dev", device, "ingress", "pref", "2", "protocol", "ip", "u32", "match", "ip",
            "dport", "9999", "0xffff", "flowid", "1:1"});
        add_filter(first_, "ingress", "1");
        add_filter(last_, "ingress", "5");
        if (qdisc == Qdisc::clsact)
            add_filter(egress_, "egress", "1");
        tcx_.link_tcx(device);
    }
    ~Foreigners() {
        for (const auto& path : pinned_)
            ::unlink(path.c_str());
    }
    Foreigners(const Foreigners&) = delete;
    Foreigners& operator=(const Foreigners&) = delete;

    [[nodiscard]] std::array<std::uint64_t, 3> counted() const {
        return {first_.packets(), last_.packets(), tcx_.packets()};
    }
    [[nodiscard]] bool tcx_is_there() const { return tcx_.is_linked(); }

private:
    void add_filter(const CountingProgram& program, const char* direction, const char* preference) {
        pinned_.push_back(fmt::format("/sys/fs/bpf/foreign-{}", program.id()));
        program.pin(pinned_.back());
        tc({"filter", "add", "dev", device, direction, "pref", preference, "protocol", "all", "bpf", "da",
            "object-pinned", pinned_.back()});
    }
    CountingProgram first_{CountingProgram::Kind::tc};
    CountingProgram last_{CountingProgram::Kind::tc};
    CountingProgram egress_{CountingProgram::Kind::tc};
    CountingProgram tcx_{CountingProgram::Kind::tc};
    std::vector<std::string> pinned_;
};

std::string all_there_is() {
    return traffic_control() + must_run({"ip", "-d", "link", "show", "dev", device});
}

class Foreign : public testing::TestWithParam<const char*> {
protected:
    [[nodiscard]] Argv gating() const { return {"--ports", "80", "--hook", GetParam()}; }

    ClientHost hosts;
    const Listener server{port};
    const Listener other_server{other_port};
    Target gated{ClientHost::server_v4, port};
    Target other{ClientHost::server_v4, other_port};
    Target other_v6{ClientHost::server_v6, other_port};

    // Everything that passes while the gate is closed.
    void pass(const Fd& client, const Fd& accepted) const {
        EXPECT_EQ(knock(hosts.client, other), Reply::connected);
        EXPECT_EQ(knock(hosts.client, other_v6), Reply::connected);
        char byte = 'x';
        ASSERT_EQ(::write(client.get(), &byte, 1), 1);
        ASSERT_EQ(::read(accepted.get(), &byte, 1), 1);
    }
};

} // namespace

TEST_P(Foreign, ProgramsStayAndRunBeforeDuringAndAfter) {
    const Foreigners foreigners;
    const auto before = all_there_is();
    const Fd client = connect_from(hosts.client, gated);
    const Fd accepted = server.accept();
    for (const bool killed : {false, true}) {
        Closed agent(gating());
        ASSERT_EQ(knock(hosts.client, gated), Reply::silent);
        const auto counted = foreigners.counted();
        pass(client, accepted);
        const auto now = foreigners.counted();
        for (std::size_t i = 0; i < now.size(); ++i)
            EXPECT_GE(now[i], counted[i] + 5) << i; // two SYNs, their ACKs, the byte
        EXPECT_TRUE(foreigners.tcx_is_there());
        if (killed) {
            agent.kill();
            Closed(gating()).end();
        } else {
            agent.end();
        }
        EXPECT_EQ(all_there_is(), before) << (killed ? "after SIGKILL and the next start" : "after its end");
        EXPECT_TRUE(foreigners.tcx_is_there());
        EXPECT_EQ(knock(hosts.client, gated), Reply::connected);
    }
    tc({"qdisc", "delete", "dev", device, "clsact"});
}

TEST_P(Foreign, IngressQdiscIsAsGoodAsClsact) {
    const Foreigners foreigners(Foreigners::Qdisc::ingress);
    const auto before = all_there_is();
    Closed agent(gating());
    EXPECT_EQ(knock(hosts.client, gated), Reply::silent);
    agent.end();
    EXPECT_EQ(all_there_is(), before);
    {
        Closed dying(gating());
        dying.kill();
    }
    EXPECT_TRUE(cli({"cleanup"}).ok());
    EXPECT_EQ(all_there_is(), before);
}

// Whoever comes later finds our qdisc, and keeps it.
TEST_P(Foreign, FilterThatCameIntoOurQdiscStays) {
    const CountingProgram late(CountingProgram::Kind::tc);
    const std::string path = "/sys/fs/bpf/late";
    late.pin(path);
    {
        Closed agent(gating());
        run({"tc", "qdisc", "add", "dev", device, "clsact"}); // there already, with --hook tc
        tc({"filter", "add", "dev", device, "ingress", "pref", "7", "protocol", "all", "bpf", "da",
            "object-pinned", path});
        agent.end();
    }
    const auto counted = late.packets();
    EXPECT_EQ(knock(hosts.client, gated), Reply::connected);
    EXPECT_GT(late.packets(), counted);
    EXPECT_NE(traffic_control().find("qdisc clsact"), std::string::npos);
    ::unlink(path.c_str());
    tc({"qdisc", "delete", "dev", device, "clsact"});
}

INSTANTIATE_TEST_SUITE_P(Hooks, Foreign, testing::Values("tcx", "tc", "xdp"),
                         [](const auto& of) { return std::string(of.param); });

TEST(ForeignXdp, StaysAndRunsBesideTcAndTcx) {
    const ClientHost hosts;
    const Listener server(port);
    const Listener other_server(other_port);
    CountingProgram xdp(CountingProgram::Kind::xdp);
    xdp.link_xdp(device);
    const auto before = all_there_is();
    for (const char* hook : {"tcx", "tc"}) {
        Closed agent({"--ports", "80", "--hook", hook});
        const auto counted = xdp.packets();
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, port}), Reply::silent);
        EXPECT_EQ(knock(hosts.client, {ClientHost::server_v4, other_port}), Reply::connected);
        EXPECT_GE(xdp.packets(), counted + 3);
        agent.end();
        EXPECT_EQ(all_there_is(), before);
        EXPECT_TRUE(xdp.is_linked());
    }
}

TEST(ForeignXdp, KeepsTheGateFromXdpWhichSaysSo) {
    const ClientHost hosts;
    CountingProgram xdp(CountingProgram::Kind::xdp);
    xdp.link_xdp(device);
    const auto before = all_there_is() + must_run({"ip", "-d", "link", "show", "dev", "lo"});
    const auto result = cli({"exec", "--ports", "80", "--hook", "xdp", "--", "true"});
    EXPECT_EQ(result.status, (ExitStatus{4, 0}));
    EXPECT_NE(result.err.find(fmt::format("XDP program {} ", xdp.id())), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(device), std::string::npos) << result.err;
    EXPECT_EQ(all_there_is() + must_run({"ip", "-d", "link", "show", "dev", "lo"}), before);
    EXPECT_EQ(pins(), std::set<std::string>{});
}

} // namespace syngate::live::robust
