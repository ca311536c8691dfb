// SPDX-License-Identifier: GPL-2.0-or-later
// What an agent costs that is attached and has nothing to do, against nothing attached: A B A B.
#include "common/benchmarks.hpp"
#include "proxy/traffic.hpp"

#include <fmt/format.h>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t bulk_port = 9100;
constexpr std::uint16_t other_port = 8090;

} // namespace

void measure_idle(const Settings& settings) {
    Result result(settings, "idle");
    // Many short rounds: what one differs from the next is much more than what is looked for.
    const Duration length = 1s;
    const int rounds = settings.quick ? 2 : 40;
    result.parameters() = {{"rounds", rounds}, {"seconds", std::chrono::duration<double>(length).count()}};
    const ClientHost hosts;
    const auto server =
        start_server(haproxy_argv(write_file("idle.cfg", haproxy_config({.ports = {port}}))), {port});
    const robust::Listener listener(bulk_port);
    const auto measure = [&] {
        Json both = short_connections(hosts.client, {ClientHost::server_v4, port}, "ok", length);
        both.update(bulk(hosts.client, {ClientHost::server_v4, bulk_port}, listener, length));
        return both;
    };
    std::vector<std::pair<std::string, Json>> runs{
        {"nothing", Json::array()}, {"tcx", Json::array()}, {"tc", Json::array()}};
    for (int i = 0; i < rounds; ++i)
        for (auto& [name, of] : runs) {
            // The same server all the time; the agent has another one. An agent starts before each
            // measurement, so that nothing else differs.
            std::optional<StoppedAgent> agent;
            agent.emplace(AgentPlan{.server = {built("syngate-serve"), std::to_string(other_port)},
                                    .options = {"--hook", name == "nothing" ? "tcx" : name}});
            if (name == "nothing")
                agent.reset();
            of.push_back(measure());
            progress(fmt::format("attached: {:<8} {}", name, of.back().dump()));
        }
    for (auto& [name, of] : runs)
        result.add("attached", {{"name", name}, {"runs", std::move(of)}});
    result.write();
}

} // namespace syngate::bench
