// SPDX-License-Identifier: GPL-2.0-or-later
// What the agent itself takes: memory, CPU time while nothing happens, and how much later a server starts.
#include "common/benchmarks.hpp"
#include "common/host.hpp"
#include "netns/robust_agent.hpp"
#include "netns/sandbox.hpp"

#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;

// Of /proc/PID/status or smaps_rollup, in KiB.
double kib(const std::string& file, const std::string& key) {
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(key + ":"))
            return std::stod(line.substr(key.size() + 1));
    throw std::runtime_error(fmt::format("{} has no {}", file, key));
}

std::optional<std::int64_t> stamp_in(const std::string& path) {
    std::ifstream file(path);
    std::int64_t ns = 0;
    return file >> ns ? std::optional(ns) : std::nullopt;
}

// From the call that starts the program until the server's main().
double start_ms(const Argv& before) {
    const auto stamp = scratch() + "/stamp";
    std::filesystem::remove(stamp);
    Argv argv = before;
    argv.insert(argv.end(), {built("syngate-serve"), std::to_string(port), stamp});
    const auto begin = static_cast<std::int64_t>(to_ns(Clock::now()));
    Process process(argv);
    if (!wait_until([&] { return stamp_in(stamp).has_value(); }, 20s))
        throw std::runtime_error("the server was not started\n" + process.err());
    const auto started = *stamp_in(stamp);
    wait_until([] { return listens(port); });
    process.signal(SIGTERM);
    process.wait(20s);
    return static_cast<double>(started - begin) / 1e6;
}

Json memory_and_rest(const std::string& mode, Duration rest) {
    const robust::Agent agent({"run", "--mode", mode, "--ports", std::to_string(port), "--",
                               built("syngate-serve"), std::to_string(port)});
    const auto proc = fmt::format("/proc/{}", agent.process.pid());
    // A reload first: memory that is only needed then counts as well.
    if (const auto answer = agent.ask("restart"); answer["exit"] != 0)
        throw std::runtime_error("syngate restart failed: " + answer.dump(1));
    // What the restart leaves to be done is no rest yet; the agent gives memory back after 2 s.
    double before = -1;
    for (int i = 0; i < 10 && before != process_seconds(agent.process.pid()); ++i) {
        before = process_seconds(agent.process.pid());
        std::this_thread::sleep_for(3s);
    }
    std::this_thread::sleep_for(rest);
    const double used = process_seconds(agent.process.pid()) - before;
    return {{"resident_kib", kib(proc + "/status", "VmRSS")},
            {"proportional_kib", kib(proc + "/smaps_rollup", "Pss")},
            {"private_kib",
             kib(proc + "/smaps_rollup", "Private_Dirty") + kib(proc + "/smaps_rollup", "Private_Clean")},
            {"idle_seconds", std::chrono::duration<double>(rest).count()},
            {"cpu_seconds", used}};
}

} // namespace

void measure_footprint(const Settings& settings) {
    Result result(settings, "footprint");
    const Duration rest = settings.quick ? 3s : 30s;
    const int rounds = settings.quick ? 5 : 20;
    result.parameters() = {{"rounds", rounds}};
    const ClientHost hosts; // an agent attaches to more than lo
    for (const std::string mode : {"bpf", "iptables"})
        try {
            Json row = memory_and_rest(mode, rest);
            std::vector<double> alone, below;
            for (int i = 0; i < rounds; ++i) {
                alone.push_back(start_ms({}));
                below.push_back(start_ms(
                    {built("syngate"), "run", "--mode", mode, "--ports", std::to_string(port), "--"}));
            }
            row.update({{"mode", mode}, {"start_alone_ms", alone}, {"start_ms", below}});
            progress(fmt::format("agent, mode {}: {}", mode, row.dump()));
            result.add("agents", std::move(row));
        } catch (const std::exception& error) {
            result.impossible("mode " + mode, error.what());
        }
    result.write();
}

} // namespace syngate::bench
