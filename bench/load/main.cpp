// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/client.hpp"

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <fmt/format.h>
#include <iostream>

namespace {

using namespace syngate;

std::atomic<bool> stop_asked = false;

void on_stop_signal(int) {
    stop_asked.store(true);
}

constexpr auto description =
    "Opens TCP connections at a fixed rate, whatever becomes of the earlier ones, sends one HTTP/1.0 request "
    "on each,\n"
    "reads to EOF, and reports latencies from the intended starts. Exit status: 0 every connection was "
    "answered,\n"
    "1 any failed, 2 usage. SIGINT and SIGTERM end the schedule; what is open is waited for.";

struct Arguments {
    std::vector<std::string> to;
    std::vector<std::string> from;
    std::string duration;
    std::string timeout = "10s";
    bool json = false;
    bool until_stdin_closes = false;
    bool progress = false;
};

void declare(CLI::App& app, Arguments& arguments, load::Options& options) {
    app.add_option("--to", arguments.to, "ADDR:PORT or [ADDR]:PORT; repeatable, taken in turn")->required();
    app.add_option("--from", arguments.from,
                   "source address; repeatable, taken in turn among those of the destination's family");
    app.add_option("--rate", options.rate, "starts a second, evenly spaced")->capture_default_str();
    app.add_option("--duration", arguments.duration,
                   "of the schedule: 10s, 500ms, 5m [10s; with --until-stdin-closes 1h]");
    app.add_option("--timeout", arguments.timeout, "of a connection, from its intended start")
        ->capture_default_str();
    app.add_flag("--reset-close", options.reset_close,
                 "end a connection by RST once its answer is whole: no TIME_WAIT on either side");
    app.add_flag("--json", arguments.json, "report as JSON");
    app.add_flag("--until-stdin-closes", arguments.until_stdin_closes,
                 "end the schedule at the end of the standard input, at the latest after --duration");
    app.add_flag("--progress", arguments.progress, "a line at the start and each second on standard error");
}

Result<> take(const Arguments& arguments, load::Options& options) {
    for (const auto& text : arguments.to) {
        auto endpoint = load::parse_endpoint(text);
        if (!endpoint)
            return std::unexpected(endpoint.error());
        options.to.push_back(*endpoint);
    }
    for (const auto& text : arguments.from) {
        auto endpoint = load::parse_address(text);
        if (!endpoint)
            return std::unexpected(endpoint.error());
        options.from.push_back(*endpoint);
    }
    const std::string usual = arguments.until_stdin_closes ? "1h" : "10s";
    const auto duration = parse_duration(arguments.duration.empty() ? usual : arguments.duration);
    const auto timeout = parse_duration(arguments.timeout);
    if (!duration || !timeout)
        return std::unexpected(duration ? timeout.error() : duration.error());
    options.duration = *duration;
    options.timeout = *timeout;
    options.stop_fd = arguments.until_stdin_closes ? 0 : -1;
    options.stop = &stop_asked;
    if (arguments.progress)
        options.progress = [](const load::Progress& p) {
            fmt::print(stderr, "{:.0f} s: {} started, {} ok, {} failed, {} open, max {}\n",
                       std::chrono::duration<double>(p.since_start).count(), p.started, p.ok, p.failed,
                       p.open, format_duration(p.max_latency));
        };
    return {};
}

void catch_stop_signals() {
    struct sigaction action {};
    action.sa_handler = on_stop_signal; // without SA_RESTART: it must interrupt the wait
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
}

int complain(const Error& error) {
    fmt::print(stderr, "syngate-load: {}\n", error.message);
    return static_cast<int>(error.exit);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app(description, "syngate-load");
    Arguments arguments;
    load::Options options;
    declare(app, arguments, options);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : static_cast<int>(Exit::usage);
    }
    if (auto taken = take(arguments, options); !taken)
        return complain(taken.error());
    catch_stop_signals();
    const auto report = load::run(options);
    if (!report)
        return complain(report.error());
    fmt::print("{}", arguments.json ? load::to_json(*report).dump(2) + "\n" : load::to_text(*report));
    return report->outcomes.failed() == 0 ? 0 : 1;
}
