// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/load_run.hpp"

#include <fmt/format.h>
#include <stdexcept>

namespace syngate::live {

namespace {

Argv arguments(const LoadPlan& plan) {
    Argv argv{built("syngate-load"), "--json", "--rate", fmt::format("{}", plan.rate)};
    for (const auto& to : plan.to)
        argv.insert(argv.end(), {"--to", to});
    argv.insert(argv.end(), plan.more.begin(), plan.more.end());
    return argv;
}

LoadResult result_of(ExitStatus status, const std::string& out, const std::string& err) {
    auto report = nlohmann::json::parse(out, nullptr, false);
    if (report.is_discarded())
        throw std::runtime_error(fmt::format("syngate-load (exit status {}, signal {}) has no report:\n{}{}",
                                             status.code, status.signal, out, err));
    return {status, std::move(report)};
}

Argv open_ended(const LoadPlan& plan) {
    auto argv = arguments(plan);
    argv.insert(argv.end(), {"--until-stdin-closes", "--duration", "240s", "--progress"});
    return argv;
}

} // namespace

LoadRun::LoadRun(const Namespace& client, const LoadPlan& plan)
    : process_(open_ended(plan), {.where = &client, .open_stdin = true}) {
    // Its first line of progress comes after the first start.
    wait_until([&] { return process_.err().contains('\n') || !process_.runs(); });
    if (!process_.runs())
        finish();
}

LoadResult LoadRun::finish() {
    process_.close_stdin();
    const auto status = process_.wait(std::chrono::seconds(60));
    if (!status)
        throw std::runtime_error("syngate-load did not end after its standard input\n" + process_.err());
    return result_of(*status, process_.out(), process_.err());
}

LoadResult run_load(const Namespace& client, const LoadPlan& plan, const std::string& duration) {
    auto argv = arguments(plan);
    argv.insert(argv.end(), {"--duration", duration});
    const auto result = run(argv, {.where = &client}, std::chrono::minutes(4));
    return result_of(result.status, result.out, result.err);
}

} // namespace syngate::live
