// SPDX-License-Identifier: GPL-2.0-or-later
// What transparent proxying costs a packet, beside the iptables rules that are usual for it, and nothing.
#include "common/benchmarks.hpp"
#include "common/elsewhere.hpp"
#include "packet/flood_scene.hpp"
#include "prog/repaired.hpp"
#include "proxy/transparent_by_iptables.hpp"

#include "netns/proxy_scene.hpp"

#include <fmt/format.h>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

namespace syngate::bench {

namespace {

using namespace live;
using namespace prog;
using namespace std::chrono_literals;

constexpr std::uint16_t backend_port = 9000;

// Acknowledgements of a connection that say nothing new.
struct Connection {
    std::string name;
    const char* own = nullptr;
    std::uint16_t port = 0;
    bool transparent = false;
};
const Connection ordinary{"an ordinary connection", FloodScene::server_v4, 8080, false};
const Connection transparent{"a transparent connection", "192.0.2.7", 50000, true};

// One way of transparent proxying, or none, in a namespace of its own.
class World {
public:
    explicit World(const std::string& way) {
        if (way == "iptables")
            rules_.emplace();
        else if (way == "syngate")
            agent_.emplace(
                AgentPlan{.server = {built("syngate-serve"), "8090"}, .options = {"--transparent", "on"}});
        for (const auto& each : {ordinary, transparent})
            sockets_.push_back(
                established({each.own, each.port}, {FloodScene::client_v4, backend_port}, each.transparent));
    }
    [[nodiscard]] Json flood(const Connection& of, Duration length) const {
        const auto frame = scene_.frame()
                               .ipv4({.src = FloodScene::client_v4, .dst = of.own})
                               .tcp({.sport = backend_port, .dport = of.port, .flags = ACK, .options = 12})
                               .bytes();
        Json run = scene_.flood(frame, length);
        if (run["reached_tcp"].get<double>() < 0.9 * run["packets"].get<double>())
            throw std::runtime_error(fmt::format("packets of {} did not reach it: {}", of.name, run.dump()));
        return run;
    }

private:
    FloodScene scene_;
    std::optional<TransparentByIptables> rules_;
    std::optional<StoppedAgent> agent_;
    std::vector<Fd> sockets_;
};

} // namespace

void measure_diverting(const Settings& settings) {
    Result result(settings, "divert");
    const Duration length = 100ms;
    const int rounds = settings.quick ? 2 : 200;
    result.parameters() = {{"rounds", rounds}, {"slice_ms", 100}};
    std::map<std::string, Elsewhere<World>> worlds;
    try {
        for (const char* name : {"nothing", "iptables", "syngate"})
            worlds.try_emplace(name, name);
    } catch (const std::exception& error) {
        result.impossible("a flood", error.what());
        return result.write();
    }
    std::map<std::pair<std::string, std::string>, Json> runs;
    for (int round = 0; round < rounds; ++round)
        for (const auto& connection : {ordinary, transparent})
            for (const auto& [name, world] : worlds)
                if (name != "nothing" || !connection.transparent) // it would be forwarded
                    runs[{connection.name, name}].push_back(
                        world.inside([&](const World& it) { return it.flood(connection, length); }));
    for (auto& [key, of] : runs)
        result.add("ways", {{"connection", key.first}, {"name", key.second}, {"runs", std::move(of)}});
    result.write();
}

} // namespace syngate::bench
