// SPDX-License-Identifier: GPL-2.0-or-later
// What transparent proxying costs, beside the iptables rules that are usual for it: A B A B in one run, over
// IPv4. Prints one JSON object, asserts nothing about it; wants a machine with nothing else to do. Run with
//   syngate-test-netns --gtest_also_run_disabled_tests --gtest_filter='TransparentCost.*'
#include "netns/proxy_scene.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t bulk_port = 9100;
constexpr std::uint16_t bulk_proxy_port = 8081;
constexpr int clients = 8;

// Of all CPUs, everything but idle and waiting for disks.
double busy_seconds() {
    std::ifstream file("/proc/stat");
    std::string name;
    double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
    file >> name >> user >> nice >> system >> idle >> iowait >> irq >> softirq;
    return (user + nice + system + irq + softirq) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

Duration round_length() {
    const char* seconds = std::getenv("SYNGATE_BENCH_SECONDS");
    return std::chrono::seconds(seconds ? std::max(1, std::atoi(seconds)) : 5);
}

double seconds(Duration d) {
    return std::chrono::duration<double>(d).count();
}

std::string config() {
    return write_file("cost.cfg",
                      fmt::format("global\n"
                                  "    maxconn 20000\n"
                                  "defaults\n"
                                  "    mode tcp\n"
                                  "    timeout connect 5s\n"
                                  "    timeout client 30s\n"
                                  "    timeout server 30s\n"
                                  "    source 0.0.0.0 usesrc clientip\n"
                                  "listen short\n"
                                  "    bind 0.0.0.0:{}\n"
                                  "    server one {}:{}\n"
                                  "listen bulk\n"
                                  "    bind 0.0.0.0:{}\n"
                                  "    server one {}:{}\n",
                                  ProxyScene::proxy_port, ProxyScene::backend_v4, ProxyScene::backend_port,
                                  bulk_proxy_port, ProxyScene::backend_v4, bulk_port));
}

// As the container that syngate supersedes does it.
class ByIptables {
public:
    ByIptables() : server_(start_server(haproxy_argv(config()), {ProxyScene::proxy_port, bulk_proxy_port})) {
        for (const Argv& argv :
             {Argv{"-N", "DIVERT"}, Argv{"-A", "PREROUTING", "-p", "tcp", "-m", "socket", "-j", "DIVERT"},
              Argv{"-A", "DIVERT", "-j", "MARK", "--set-mark", "1"}, Argv{"-A", "DIVERT", "-j", "ACCEPT"}}) {
            Argv all{"iptables", "-t", "mangle"};
            all.insert(all.end(), argv.begin(), argv.end());
            must_run(all);
        }
        must_run({"ip", "rule", "add", "fwmark", "1", "lookup", "100"});
        must_run({"ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100"});
    }
    ~ByIptables() {
        run({"iptables", "-t", "mangle", "-F"});
        run({"iptables", "-t", "mangle", "-X"});
        run({"ip", "rule", "delete", "fwmark", "1", "lookup", "100"});
        run({"ip", "route", "flush", "table", "100"});
    }
    ByIptables(const ByIptables&) = delete;
    ByIptables& operator=(const ByIptables&) = delete;

private:
    Process server_;
};

// One connection after the other by each client, for a while.
nlohmann::json short_connections(const ProxyScene& scene) {
    std::atomic<std::uint64_t> served = 0, failed = 0;
    const Time begin = Clock::now();
    const Time end = begin + round_length();
    const double busy = busy_seconds();
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < clients; ++i)
            threads.emplace_back([&] {
                while (Clock::now() < end)
                    ++(http_get(scene.hosts.client, {ClientHost::server_v4, ProxyScene::proxy_port}) ==
                               ClientHost::client_v4
                           ? served
                           : failed);
            });
    }
    const double took = seconds(Clock::now() - begin);
    const auto count = static_cast<double>(served.load());
    return {{"connections_per_second", count / took},
            {"failed", failed.load()},
            {"cpu_us_per_connection", count > 0 ? (busy_seconds() - busy) / count * 1e6 : 0.0}};
}

// The backend sends as fast as the client takes it.
nlohmann::json bulk(const ProxyScene& scene) {
    const robust::Listener listener(scene.backend, bulk_port);
    const Fd client = robust::connect_from(scene.hosts.client, {ClientHost::server_v4, bulk_proxy_port});
    const Fd accepted = listener.accept();
    const Time begin = Clock::now();
    const Time end = begin + round_length();
    const double busy = busy_seconds();
    const std::jthread sender([&] {
        const std::vector<char> zeros(1 << 18);
        while (Clock::now() < end && ::send(accepted.get(), zeros.data(), zeros.size(), MSG_NOSIGNAL) > 0) {
        }
        ::shutdown(accepted.get(), SHUT_WR);
    });
    std::vector<char> buffer(1 << 18);
    double bytes = 0;
    pollfd ready{client.get(), POLLIN, 0};
    while (::poll(&ready, 1, 5000) == 1) {
        const ssize_t size = ::read(client.get(), buffer.data(), buffer.size());
        if (size == 0)
            break;
        bytes += static_cast<double>(std::max<ssize_t>(size, 0));
    }
    const double took = seconds(Clock::now() - begin);
    return {{"gbit_per_second", bytes * 8 / took / 1e9},
            {"cpu_s_per_gigabyte", bytes > 0 ? (busy_seconds() - busy) / (bytes / 1e9) : 0.0}};
}

nlohmann::json measure(const ProxyScene& scene, const char* by) {
    return {{"by", by}, {"short", short_connections(scene)}, {"bulk", bulk(scene)}};
}

} // namespace

TEST(TransparentCost, DISABLED_BesideIptables) {
    const ProxyScene scene;
    nlohmann::json rounds = nlohmann::json::array();
    for (int i = 0; i < 2; ++i) {
        {
            const ByIptables rules;
            rounds.push_back(measure(scene, "iptables"));
        }
        const StoppedAgent agent({.server = haproxy_argv(config())});
        rounds.push_back(measure(scene, "syngate"));
    }
    fmt::print(
        "{}\n",
        nlohmann::json{{"clients", clients}, {"seconds", seconds(round_length())}, {"rounds", rounds}}.dump(
            2));
}

} // namespace syngate::live
