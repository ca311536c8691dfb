// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/benchmarks.hpp"
#include "common/host.hpp"
#include "netns/sandbox.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <map>

namespace {

using namespace syngate::bench;

struct Entry {
    const char* measures;
    void (*run)(const Settings&);
};

const std::map<std::string, Entry> benchmarks{
    {"reload", {"what clients notice of reloads", measure_reloads}},
    {"shards", {"what clients notice of reloads of HAProxy with threads and shards", measure_shards}},
    {"restart", {"what clients notice of full restarts", measure_restarts}},
    {"packet", {"what a packet costs in each program (BPF_PROG_RUN)", measure_packets}},
    {"flood", {"how many SYNs of a flood each way of dropping stands", measure_flood}},
    {"idle", {"what an agent costs that has nothing to do", measure_idle}},
    {"steer", {"transparent proxying, beside iptables", measure_steering}},
    {"divert", {"a packet of transparent proxying, beside iptables", measure_diverting}},
    {"scale", {"ports, parked SYNs and interfaces, from one to many", measure_scale}},
    {"footprint", {"the agent's memory, CPU time and start", measure_footprint}},
    {"image", {"nothing: begins a result that bench/render/image.py completes", begin_image}},
};

} // namespace

int main(int argc, char** argv) {
    CLI::App app("Measures syngate beside what else a user could do, in namespaces of its own. script/bench "
                 "runs it and makes tables and charts of what it writes.",
                 "syngate-bench");
    Settings settings;
    app.add_flag("--quick", settings.quick, "less of everything, by the same code");
    app.add_option("--out", settings.out, "directory of the results")->required();
    app.require_subcommand(1);
    for (const auto& [name, entry] : benchmarks)
        app.add_subcommand(name, entry.measures)->fallthrough();
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    const Entry& chosen = benchmarks.at(app.get_subcommands().front()->get_name());
    keep_host_proc();
    return syngate::live::in_sandbox([&] {
        try {
            chosen.run(settings);
            return 0;
        } catch (const std::exception& error) {
            fmt::print(stderr, "{}\n", error.what());
            return 1;
        }
    });
}
