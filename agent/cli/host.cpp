// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/host.hpp"

#include "cli/backend.hpp"
#include "cli/sweep.hpp"
#include "probe/switches.hpp"
#include "steer/bpf_steering.hpp"

#include <csignal>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace syngate {

namespace {

// From the first moment: a signal that comes before its handler waits for it, and does not end the agent with
// something half done (or, for PID 1, get lost).
void block_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2})
        sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, nullptr);
}

} // namespace

Result<std::unique_ptr<Host>> Host::make(const Options& options, bool server_is_transparent) {
    block_signals();
    std::unique_ptr<Host> host(new Host);
    host->verb_ = options.verb;
    const auto here = network_namespace();
    if (!here)
        return std::unexpected(here.error());
    host->control_path_ = options.control.empty() ? fmt::format("{}/{}{}-{}.sock", options.gate.runtime_dir,
                                                                control_prefix, *here, getpid())
                                                  : options.control;

    auto loop = Loop::make();
    if (!loop)
        return std::unexpected(loop.error());
    host->loop_ = std::move(*loop);
    auto registry = Registry::announce(*host->loop_, options.verb, host->control_path_);
    if (!registry)
        return std::unexpected(registry.error());
    host->registry_ = std::move(*registry);
    if (!options.gate.ports.empty())
        if (const auto r = host->registry_->claim(options.gate.ports); !r)
            return std::unexpected(r.error());
    auto sockets = open_sock_diag();
    if (!sockets)
        return std::unexpected(sockets.error());
    host->sockets_ = std::move(*sockets);

    if (const auto swept = sweep(options.gate); swept)
        for (const std::string& what : *swept)
            spdlog::info("removed {}", what);
    else
        spdlog::warn("what a killed agent may have left could not be looked for: {}", swept.error().message);

    auto transparent = Transparent::make(options.transparent, server_is_transparent, *host->registry_);
    if (!transparent)
        return std::unexpected(transparent.error());
    host->transparent_ = std::move(*transparent);

    const auto divert = host->transparent_->divert();
    auto gate = make_gate(*host->loop_, options.gate, host->registry_->id(), divert);
    if (!gate)
        return std::unexpected(gate.error());
    host->gate_ = std::move(*gate);
    if (divert && host->gate_->status().mode != "bpf")
        if (const auto r = host->transparent_->give_up(*host->registry_); !r)
            return std::unexpected(r.error());
    if (const auto r = host->make_steerer(options); !r)
        return std::unexpected(r.error());
    host->transparent_->report_obstacles(host->gate_->status().interfaces);
    return host;
}

Result<void> Host::make_steerer(const Options& options) {
    const bool needed =
        options.verb == "flip" || (options.verb == "run" && options.gate.flip == Flip::always);
    if (!needed && (options.verb != "run" || options.gate.flip == Flip::never))
        return {};
    if (gate_->status().mode != "bpf") { // who does without BPF does so altogether
        if (needed)
            return failure(Exit::impossible,
                           "new connections are steered by BPF only, and this is mode iptables; "
                           "use --policy hold or drop");
        return {};
    }
    auto steering = switched_off(feature::sk_lookup)
                        ? failure(Exit::impossible, fmt::format("sk_lookup is {}", off_text))
                        : make_bpf_steering({.pins = gate_->status().pins, .owner_id = registry_->id()});
    if (!steering && needed)
        return std::unexpected(steering.error());
    if (!steering) {
        spdlog::info("reloads go behind a closed gate, new connections cannot be steered here: {}",
                     steering.error().message);
        return {};
    }
    steering_ = std::move(*steering);
    steerer_ = std::make_unique<Steerer>(*steering_, *sockets_);
    if (const auto r = steerer_->follow_on(*loop_); !r)
        return r;
    return {};
}

Result<void> Host::serve(std::function<void(const nlohmann::json&, Reply)> handler) {
    auto control = ControlServer::start(
        *loop_, control_path_,
        [this, handler = std::move(handler)](const nlohmann::json& request, Reply reply) {
            handler(request, [this, reply = std::move(reply)](nlohmann::json answer) {
                if (answer.contains("gate")) {
                    answer["agent"] = {{"version", SYNGATE_VERSION},
                                       {"command", verb_},
                                       {"pid", getpid()},
                                       {"id", fmt::format("{:016x}", registry_->id())},
                                       {"control", control_path_}};
                    answer["transparent"] = transparent_->status(gate_->status());
                }
                reply(answer);
            });
        });
    if (!control)
        return std::unexpected(control.error());
    control_ = std::move(*control);
    return {};
}

} // namespace syngate
