// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/report.hpp"

#include <fmt/format.h>

namespace syngate::load {

namespace {

double ms(Duration d) {
    return static_cast<double>(d.count()) / 1e6;
}

double seconds(Duration d) {
    return static_cast<double>(d.count()) / 1e9;
}

nlohmann::json to_json(const Histogram& h) {
    return {{"p50", ms(h.quantile(0.5))},  {"p90", ms(h.quantile(0.9))},
            {"p99", ms(h.quantile(0.99))}, {"p99_9", ms(h.quantile(0.999))},
            {"max", ms(h.max())},          {"mean", ms(h.mean())},
            {"count", h.count()},          {"over_500ms", h.over_threshold()}};
}

// [end of the step in ms, count] each.
nlohmann::json distribution_of(const Histogram& h) {
    auto steps = nlohmann::json::array();
    for (const auto& [end, count] : h.distribution())
        steps.push_back({ms(end), count});
    return steps;
}

std::string to_text(std::string_view name, const Histogram& h) {
    return fmt::format(
        "{:<8} p50 {:.3f}  p90 {:.3f}  p99 {:.3f}  p99.9 {:.3f}  max {:.3f} ms, {} over 500 ms\n", name,
        ms(h.quantile(0.5)), ms(h.quantile(0.9)), ms(h.quantile(0.99)), ms(h.quantile(0.999)), ms(h.max()),
        h.over_threshold());
}

template <class F> void each_outcome(F f) {
    for (std::size_t i = 0; i < outcome_count; ++i)
        f(static_cast<Outcome>(i));
}

nlohmann::json optional_seconds(const std::optional<Duration>& d) {
    return d ? nlohmann::json(seconds(*d)) : nlohmann::json(nullptr);
}

} // namespace

nlohmann::json to_json(const Report& report) {
    nlohmann::json outcomes;
    each_outcome([&](Outcome o) { outcomes[std::string(name_of(o))] = report.outcomes[o]; });
    return {{"rate", {{"wanted", report.wanted_rate}, {"achieved", report.achieved_rate}}},
            {"elapsed_s", seconds(report.elapsed)},
            {"started", report.started},
            {"outcomes", outcomes},
            {"failed", report.outcomes.failed()},
            {"latency_ms", to_json(report.latency)},
            {"latency_distribution", distribution_of(report.latency)},
            {"connect_ms", to_json(report.connect)},
            {"max_lateness_ms", ms(report.max_lateness)},
            {"max_open", report.max_open},
            {"first_failure_s", optional_seconds(report.first_failure)},
            {"last_failure_s", optional_seconds(report.last_failure)},
            {"first_local_error", report.first_local_error}};
}

std::string to_text(const Report& report) {
    std::string text = fmt::format(
        "{} connections in {:.2f} s: {:.0f}/s of {:.0f}/s wanted, at most {} open\n", report.started,
        seconds(report.elapsed), report.achieved_rate, report.wanted_rate, report.max_open);
    each_outcome([&](Outcome o) {
        if (o == Outcome::ok || report.outcomes[o] != 0)
            text += fmt::format("{:<12}{}\n", name_of(o), report.outcomes[o]);
    });
    if (report.first_failure && report.last_failure)
        text += fmt::format("failures between {:.3f} s and {:.3f} s\n", seconds(*report.first_failure),
                            seconds(*report.last_failure));
    text += to_text("latency", report.latency) + to_text("connect", report.connect);
    text += fmt::format("the generator itself was at most {:.3f} ms late\n", ms(report.max_lateness));
    if (!report.first_local_error.empty())
        text += fmt::format("NO VALID MEASUREMENT, this machine failed: {}\n", report.first_local_error);
    return text;
}

} // namespace syngate::load
