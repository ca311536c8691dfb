// SPDX-License-Identifier: GPL-2.0-or-later
// What transparent proxying costs, beside the iptables rules that are usual for it: A B A B, over IPv4.
#include "common/benchmarks.hpp"
#include "common/elsewhere.hpp"
#include "common/host.hpp"
#include "proxy/traffic.hpp"
#include "proxy/transparent_by_iptables.hpp"

#include <fmt/format.h>
#include <map>

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

// A client, a proxy and a backend.
class World {
public:
    [[nodiscard]] Traffic carry(Duration slice) const {
        Traffic both = short_connections(scene_.hosts.client, {ClientHost::server_v4, ProxyScene::proxy_port},
                                         ClientHost::client_v4, slice);
        both += bulk(scene_.hosts.client, {ClientHost::server_v4, bulk_proxy_port}, sink_, slice);
        return both;
    }

private:
    ProxyScene scene_;
    robust::Listener sink_{scene_.backend, bulk_port};
};

struct WithIptables : World {
    TransparentByIptables rules;
    Process server = start_server(haproxy_argv(config()), {ProxyScene::proxy_port, bulk_proxy_port});
};

struct WithSyngate : World {
    StoppedAgent agent{{.server = haproxy_argv(config())}};
};

} // namespace

void measure_steering(const Settings& settings) {
    Result result(settings, "steer");
    use_one_cpu();
    const int rounds = settings.quick ? 2 : 60;
    const Turns turns{.slice = 100ms, .count = settings.quick ? 2 : 12};
    result.parameters() = {{"rounds", rounds}, {"turns", turns.count}, {"slice_ms", 100}};
    std::map<std::string, Json> runs;
    for (int i = 0; i < rounds; ++i) {
        // Anew each time: where a process happens to have its memory makes a difference, too.
        const Elsewhere<WithIptables> iptables;
        const Elsewhere<WithSyngate> syngate;
        const auto carried =
            carry_by_turns({{"iptables", [&](Duration slice) { return (*iptables).carry(slice); }},
                            {"syngate", [&](Duration slice) { return (*syngate).carry(slice); }}},
                           turns);
        runs["iptables"].push_back(carried[0]);
        runs["syngate"].push_back(carried[1]);
    }
    for (auto& [name, of] : runs)
        result.add("ways", {{"name", name}, {"runs", std::move(of)}});
    result.write();
}

} // namespace syngate::bench
