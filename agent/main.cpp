// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/log.hpp"
#include "cli/commands.hpp"
#include "probe/switches.hpp"
#include "server/haproxy_image.hpp"

#include <csignal>
#include <fmt/format.h>
#include <map>
#include <spdlog/spdlog.h>

namespace {

using syngate::Options;
using syngate::Result;

Result<int> entrypoint(const Options& options) {
    if (const auto warning = syngate::unsupervised_warning(options.command); !warning.empty())
        spdlog::warn("{}", warning);
    return syngate::command_entrypoint(options);
}

Result<int> run_verb(const Options& options) {
    static const std::map<std::string, Result<int> (*)(const Options&)> verbs = {
        {"run", syngate::command_run},     {"exec", syngate::command_exec},
        {"close", syngate::command_close}, {"flip", syngate::command_flip},
        {"reload", syngate::command_ask},  {"restart", syngate::command_ask},
        {"status", syngate::command_ask},  {"open", syngate::command_ask},
        {"probe", syngate::command_probe}, {"cleanup", syngate::command_cleanup},
        {"entrypoint", entrypoint},
    };
    return verbs.at(options.verb)(options);
}

} // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    const auto options = syngate::parse_options(argc, argv);
    if (!options) {
        fmt::print(stderr, "syngate: {}\n", options.error().message);
        return static_cast<int>(options.error().exit);
    }
    if (options->verb.empty()) {
        fmt::print("{}", options->text);
        return 0;
    }
    if (const auto switches = syngate::check_switches(); !switches) {
        fmt::print(stderr, "syngate: {}\n", switches.error().message);
        return static_cast<int>(switches.error().exit);
    }
    syngate::log_start(options->log_level);
    const auto status = run_verb(*options);
    if (!status) {
        fmt::print(stderr, "syngate {}: {}\n", options->verb, status.error().message);
        return static_cast<int>(status.error().exit);
    }
    return *status;
}
