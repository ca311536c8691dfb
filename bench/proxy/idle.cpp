// SPDX-License-Identifier: GPL-2.0-or-later
// What an agent costs that is attached and has nothing to do, against nothing attached: A B A B.
#include "common/benchmarks.hpp"
#include "common/elsewhere.hpp"
#include "common/host.hpp"
#include "proxy/traffic.hpp"

#include <list>
#include <map>
#include <optional>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t bulk_port = 9100;
constexpr std::uint16_t other_port = 8090;

// The same server in each; the agent, if there is one, has another.
struct World {
    ClientHost hosts;
    Process server =
        start_server(haproxy_argv(write_file("idle.cfg", haproxy_config({.ports = {port}}))), {port});
    robust::Listener sink{bulk_port};
    std::optional<StoppedAgent> agent;

    explicit World(const std::string& hook) {
        if (hook != "nothing")
            agent.emplace(AgentPlan{.server = {built("syngate-serve"), std::to_string(other_port)},
                                    .options = {"--hook", hook}});
    }
    [[nodiscard]] Traffic carry(Duration slice) const {
        Traffic both = short_connections(hosts.client, {ClientHost::server_v4, port}, "ok", slice);
        both += bulk(hosts.client, {ClientHost::server_v4, bulk_port}, sink, slice);
        return both;
    }
};

} // namespace

void measure_idle(const Settings& settings) {
    Result result(settings, "idle");
    use_one_cpu();
    const int rounds = settings.quick ? 2 : 40;
    const Turns turns{.slice = 100ms, .count = settings.quick ? 2 : 12};
    result.parameters() = {{"rounds", rounds}, {"turns", turns.count}, {"slice_ms", 100}};
    const std::vector<std::string> names{"nothing", "tcx", "tc"};
    std::map<std::string, Json> runs;
    for (int i = 0; i < rounds; ++i) {
        // Anew each time: where a process happens to have its memory makes a difference, too.
        std::list<Elsewhere<World>> worlds;
        std::vector<Way> ways;
        for (const auto& name : names) {
            const auto& world = worlds.emplace_back(name);
            ways.push_back({name, [&world](Duration slice) { return (*world).carry(slice); }});
        }
        const auto carried = carry_by_turns(ways, turns);
        for (std::size_t each = 0; each < names.size(); ++each)
            runs[names[each]].push_back(carried[each]);
    }
    for (const auto& name : names)
        result.add("attached", {{"name", name}, {"runs", std::move(runs[name])}});
    result.write();
}

} // namespace syngate::bench
