// SPDX-License-Identifier: GPL-2.0-or-later
// What transparent proxying costs, beside the iptables rules that are usual for it: A B A B, over IPv4.
#include "common/benchmarks.hpp"
#include "proxy/traffic.hpp"

#include <fmt/format.h>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr std::uint16_t bulk_port = 9100;
constexpr std::uint16_t bulk_proxy_port = 8081;

std::string config() {
    return write_file("cost.cfg",
                      fmt::format("global\n"
                                  "    maxconn 8000\n"
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

Json measure(const ProxyScene& scene, Duration length) {
    const robust::Listener listener(scene.backend, bulk_port);
    Json both = short_connections(scene.hosts.client, {ClientHost::server_v4, ProxyScene::proxy_port},
                                  ClientHost::client_v4, length);
    both.update(bulk(scene.hosts.client, {ClientHost::server_v4, bulk_proxy_port}, listener, length));
    return both;
}

} // namespace

void measure_steering(const Settings& settings) {
    Result result(settings, "steer");
    // Many short rounds: what one differs from the next is much more than what is looked for.
    const Duration length = settings.quick ? 1s : 2s;
    const int rounds = settings.quick ? 2 : 30;
    result.parameters() = {{"rounds", rounds}, {"seconds", std::chrono::duration<double>(length).count()}};
    const ProxyScene scene;
    std::map<std::string, Json> runs{{"iptables", Json::array()}, {"syngate", Json::array()}};
    for (int i = 0; i < rounds; ++i) {
        {
            const ByIptables rules;
            runs["iptables"].push_back(measure(scene, length));
        }
        const StoppedAgent agent({.server = haproxy_argv(config())});
        runs["syngate"].push_back(measure(scene, length));
        for (const auto& [name, of] : runs)
            progress(fmt::format("transparent by {:<9} {}", name, of.back().dump()));
    }
    for (auto& [name, of] : runs)
        result.add("ways", {{"name", name}, {"runs", std::move(of)}});
    result.write();
}

} // namespace syngate::bench
