// SPDX-License-Identifier: GPL-2.0-or-later
// Reloads and restarts under load: every candidate in turn, and again (A B C A B C).
#include "common/benchmarks.hpp"
#include "swap/contender.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <thread>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

// Latencies count from the intended start: a client that is late itself measures the machine.
constexpr double latest_client_ms = 50;

struct Plan {
    std::vector<double> rates; // new connections a second
    int rounds = 3;
    int attempts = 3; // of a measurement in which the client was late
    Duration length = 6s;
    Duration period = 500ms;
    bool to_and_fro = false;   // A B B A instead of A B A B
    bool distributions = true; // of the latencies, for a chart
};

double ms(Duration d) {
    return std::chrono::duration<double, std::milli>(d).count();
}

// The schedule is the load's. Who takes longer than a period has half a one without a swap after it: its
// clients need quiet times as well.
Json swap_all(Contender& contender, const Plan& plan) {
    Json swaps = Json::array();
    const Time begin = Clock::now();
    const Time end = begin + plan.length;
    for (Time next = begin + plan.period / 2; next < end;) {
        std::this_thread::sleep_until(next);
        const Time started = Clock::now();
        Json said = contender.swap();
        swaps.push_back(Json{{"ms", ms(Clock::now() - started)}});
        if (!said.is_null())
            swaps.back()["said"] = std::move(said);
        next = std::max(next + plan.period, Clock::now() + plan.period / 2);
    }
    std::this_thread::sleep_until(end);
    return swaps;
}

LoadPlan load_plan(double rate) {
    return {.to = {fmt::format("{}:{}", ClientHost::server_v4, port),
                   fmt::format("[{}]:{}", ClientHost::server_v6, port)},
            .rate = rate,
            .more = {"--reset-close"}}; // in a minute there are more connections than ports
}

Json measure_once(const ClientHost& hosts, const Candidate& candidate, double rate, const Plan& plan) {
    const auto contender = candidate.start();
    LoadRun load(hosts.client, load_plan(rate));
    Json swaps = swap_all(*contender, plan);
    const auto result = load.finish();
    auto report = result.report;
    if (!plan.distributions)
        report.erase("latency_distribution");
    const bool judged =
        report["max_lateness_ms"].get<double>() <= latest_client_ms && result.outcome("local") == 0;
    progress(fmt::format("{:<38} {:>6.0f}/s  {:>7} connections, {} failed; p50 {:.2f}, p99.9 {:.2f}, "
                         "max {:.2f} ms; {} swaps{}",
                         candidate.name, rate, result.started(), result.failed(), result.latency_ms("p50"),
                         result.latency_ms("p99_9"), result.latency_ms("max"), swaps.size(),
                         judged ? "" : "; not judged, the client was late"));
    return {{"rate", rate}, {"judged", judged}, {"load", std::move(report)}, {"swaps", std::move(swaps)}};
}

// Every attempt is kept: a failed connection counts, whoever was late.
void measure(const ClientHost& hosts, const Candidate& candidate, double rate, const Plan& plan, Json& runs) {
    for (int attempt = 0; attempt < plan.attempts; ++attempt) {
        try {
            runs.push_back(measure_once(hosts, candidate, rate, plan));
            if (runs.back()["judged"])
                return;
        } catch (const std::exception& error) {
            progress(fmt::format("{}: {}", candidate.name, error.what()));
            runs.push_back(Json{{"rate", rate}, {"judged", false}, {"error", error.what()}});
            return;
        }
    }
}

// The highest rate up to the wanted one at which nothing fails or is late with no reload at all; a reload
// starts a server, and needs the machine as well: a quarter is left for that.
double bearable(const ClientHost& hosts, double wanted) {
    const auto server = reload_peers().front().start();
    for (double rate = wanted; rate > 5000; rate *= 0.8) {
        const auto load = run_load(hosts.client, load_plan(rate), "3s");
        progress(fmt::format("{:.0f} a second without a reload: {} failed, p99.9 {:.2f} ms, client {:.2f} ms "
                             "late",
                             rate, load.failed(), load.latency_ms("p99_9"),
                             load.report["max_lateness_ms"].get<double>()));
        if (load.failed() == 0 && load.report["max_lateness_ms"] <= 20. && load.latency_ms("p99_9") <= 20)
            return rate == wanted ? rate : rate * 0.75;
    }
    return 0;
}

void run_all(const ClientHost& hosts, const std::vector<Candidate>& candidates, const Plan& plan,
             Result& result) {
    result.parameters().update({{"rates", plan.rates},
                                {"rounds", plan.rounds},
                                {"seconds", ms(plan.length) / 1000},
                                {"period_ms", ms(plan.period)},
                                {"latest_client_ms", latest_client_ms}});
    std::vector<Json> runs(candidates.size(), Json::array());
    for (const double rate : plan.rates)
        for (int round = 0; round < plan.rounds; ++round)
            for (std::size_t turn = 0; turn < candidates.size(); ++turn) {
                const bool back = plan.to_and_fro && round % 2 == 1;
                const std::size_t i = back ? candidates.size() - 1 - turn : turn;
                if (candidates[i].impossible.empty())
                    measure(hosts, candidates[i], rate, plan, runs[i]);
            }
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const auto& c = candidates[i];
        if (!c.impossible.empty())
            result.impossible(c.name, c.impossible);
        else
            result.add("candidates", {{"name", c.name},
                                      {"group", c.group},
                                      {"server", c.server},
                                      {"note", c.note},
                                      {"about", c.about},
                                      {"runs", std::move(runs[i])}});
    }
    result.write();
}

template <class T> void append(std::vector<T>& to, std::vector<T> more) {
    std::ranges::move(more, std::back_inserter(to));
}

} // namespace

std::vector<Candidate> reload_candidates() {
    auto all = reload_peers();
    append(all, ours(Verb::reload));
    return all;
}

std::vector<Candidate> restart_candidates() {
    auto all = restart_peers();
    append(all, ours(Verb::restart));
    return all;
}

void measure_reloads(const Settings& settings) {
    const ClientHost hosts;
    Result result(settings, "reload");
    Plan plan{.rates = {2000, 5000}};
    if (settings.quick) {
        plan = {.rates = {2000}, .rounds = 1, .attempts = 1, .length = 1500ms};
    } else if (const double most = bearable(hosts, 15000); most > 0) {
        plan.rates.push_back(most);
        if (most < 15000)
            result.impossible("15,000 connections a second",
                              fmt::format("this machine bears no more than {:.0f} beside a reload", most));
    } else {
        result.impossible("15,000 connections a second", "this machine does not bear 5,000");
    }
    run_all(hosts, reload_candidates(), plan, result);
}

// Two ways to reload that lose nobody: many short rounds, since what they differ by is less than what the
// machine does.
void measure_shards(const Settings& settings) {
    const ClientHost hosts;
    Result result(settings, "shards");
    Plan plan{.rates = {3000}, .rounds = 40, .length = 3s, .to_and_fro = true, .distributions = false};
    if (settings.quick)
        plan = {.rates = {3000}, .rounds = 1, .attempts = 1, .length = 1500ms};
    else if (const double most = bearable(hosts, 15000); most > 0)
        plan.rates.push_back(most);
    run_all(hosts, {flip_with_shards(), socket_passing_with_shards()}, plan, result);
}

void measure_restarts(const Settings& settings) {
    const ClientHost hosts;
    Result result(settings, "restart");
    Plan plan{.rates = {2000}, .length = 10s, .period = 1s};
    if (settings.quick)
        plan = {.rates = {2000}, .rounds = 1, .attempts = 1, .length = 1700ms, .period = 500ms};
    run_all(hosts, restart_candidates(), plan, result);
}

} // namespace syngate::bench
