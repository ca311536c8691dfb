// SPDX-License-Identifier: GPL-2.0-or-later
// SYNs that iptables has led to a listener, which has not answered them when new connections are led
// elsewhere: dropped, or still on their way. The listener may be closed as soon as the flip is said to be
// done.
#include "netns/iptables.hpp"
#include "netns/robust_agent.hpp"

#include <arpa/inet.h>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sstream>
#include <sys/socket.h>

namespace syngate::live::robust {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;

// Room for one connection, which is there from the beginning: what comes is dropped.
class FullListener {
public:
    explicit FullListener(std::uint16_t at)
        : listener_(at, 0), first_(connect_from(Namespace::current(), {"127.0.0.1", at})) {}

private:
    Listener listener_;
    Fd first_;
};

// 0, or why it is not.
int connected(const Fd& fd) {
    pollfd done{fd.get(), POLLOUT, 0};
    if (::poll(&done, 1, 20'000) != 1)
        return ETIMEDOUT;
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

// SYNs that listeners of this namespace have dropped so far.
std::uint64_t dropped_syns() {
    std::istringstream text(read_file("/proc/thread-self/net/netstat"));
    std::string names, values;
    while (std::getline(text, names) && std::getline(text, values)) {
        std::istringstream name(names), value(values);
        for (std::string one, number; name >> one && value >> number;)
            if (one == "ListenDrops")
                return std::stoull(number);
    }
    return 0;
}

// Sockets with this local port that are in SYN_RECV or ESTABLISHED.
std::size_t arrived_at(std::uint16_t at) {
    std::size_t found = 0;
    for (const char* table : {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}) {
        std::istringstream text(read_file(table));
        for (std::string line; std::getline(text, line);) {
            std::istringstream words(line);
            std::string slot, local, remote, state;
            words >> slot >> local >> remote >> state;
            found += local.ends_with(fmt::format(":{:04X}", at)) && (state == "01" || state == "03");
        }
    }
    return found;
}

class IptablesUnanswered : public testing::TestWithParam<const char*> {
protected:
    static SpawnOptions by() { return {.extra_env = {only_variant(GetParam())}}; }
    // With a server that nobody asks.
    static Argv idle() { return running({"--mode", "iptables"}, haproxy({.ports = {9000}})); }
    static void flip(const Agent& agent, const std::string& what) {
        const auto answer = agent.ask("flip", {what});
        EXPECT_EQ(answer["exit"], 0) << answer;
    }
    const ClientHost hosts;
};

std::string name_of(const testing::TestParamInfo<const char*>& info) {
    return info.param;
}

} // namespace

// Its client sends it again, up to a minute later. The former target is gone by then.
TEST_P(IptablesUnanswered, ASynThatWasDroppedIsLedAnew) {
    const Agent agent(idle(), by());
    const Listener own(port), second(8082);
    for (const char* next : {"8080=8082", "--clear"}) {
        auto first = std::make_optional<FullListener>(8081);
        flip(agent, "8080=8081");
        const std::uint64_t before = dropped_syns();
        std::vector<Fd> clients;
        for (const char* address : {ClientHost::server_v4, ClientHost::server_v6})
            for (const Namespace* from : {&hosts.client, &hosts.server})
                clients.push_back(begin_to_connect(*from, {address, port}));
        ASSERT_TRUE(wait_until([&] { return dropped_syns() >= before + clients.size(); }));
        flip(agent, next);
        first.reset();
        for (const Fd& each : clients)
            EXPECT_EQ(connected(each), 0) << next << ": " << std::strerror(connected(each));
    }
}

// lo is slow here: a SYN of this host's own is led when it is sent, and arrives 0.3 s later.
TEST_P(IptablesUnanswered, ALocalSynHasArrivedWhenAFlipIsDone) {
    const Agent agent(idle(), by());
    const Listener second(8082);
    for (const char* address : {ClientHost::server_v4, ClientHost::server_v6}) {
        const Listener first(8081);
        flip(agent, "8080=8081");
        must_run({"tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "2kbit", "burst", "100", "limit",
                  "10000"});
        {
            // Uses up what may go at once.
            const Fd filler(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
            sockaddr_in nobody{};
            nobody.sin_family = AF_INET;
            nobody.sin_port = htons(9);
            nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            const std::array<char, 50> bytes{};
            EXPECT_EQ(::sendto(filler.get(), bytes.data(), bytes.size(), 0,
                               reinterpret_cast<const sockaddr*>(&nobody), sizeof nobody),
                      50);
        }
        const Fd client = begin_to_connect(hosts.server, {address, port});
        EXPECT_EQ(arrived_at(8081), 0U);
        flip(agent, "8080=8082");
        EXPECT_EQ(arrived_at(8081), 1U) << address;
        must_run({"tc", "qdisc", "del", "dev", "lo", "root"});
        EXPECT_FALSE(second.has_pending(0s));
    }
}

INSTANTIATE_TEST_SUITE_P(Variants, IptablesUnanswered, testing::Values("nft", "legacy"), name_of);

} // namespace syngate::live::robust
