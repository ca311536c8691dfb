// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/host.hpp"

#include "base/turns.hpp"
#include "cli/backend.hpp"
#include "cli/sweep.hpp"
#include "iptables/iptables_steering.hpp"
#include "probe/capabilities.hpp"
#include "probe/least_privilege.hpp"
#include "probe/switches.hpp"
#include "steer/bpf_steering.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate {

namespace {

constexpr Duration claim_again_after = std::chrono::milliseconds(50);
// Of transparent proxying that the server's configuration asks for and another agent does: one that is about
// to end.
constexpr Duration transparent_patience = std::chrono::seconds(1);

// From the first moment: a signal that comes before its handler waits for it, and does not end the agent with
// something half done (or, for PID 1, get lost).
void block_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2})
        sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, nullptr);
}

// The control socket is made and removed where another user is at home, who keeps even root out without
// CAP_DAC_OVERRIDE.
bool is_others_directory(std::filesystem::path directory) {
    struct stat status {};
    while (::stat(directory.empty() ? "." : directory.c_str(), &status) < 0) {
        if (directory.empty() || directory == directory.parent_path())
            return false;
        directory = directory.parent_path();
    }
    return status.st_uid != ::geteuid();
}

void give_up_privileges(const Options& options, const std::string& mode, const ServerTraits& server,
                        const std::string& control_path) {
    // In mode iptables as well the queues of listening sockets are read by BPF, where that is allowed.
    const bool iterates = verifier_trusts();
    const PrivilegeNeeds needs{.bpf = mode == "bpf" || iterates,
                               .queues = iterates,
                               .iptables = mode != "bpf",
                               .supervises = options.verb == "run" || options.verb == "exec",
                               .others_files =
                                   is_others_directory(std::filesystem::path(control_path).parent_path()),
                               .withhold_from_server = server.withhold,
                               .server_uses_bpf = server.uses_bpf};
    if (const auto r = drop_privileges(needs); !r)
        spdlog::warn("{}", r.error().message);
}

} // namespace

Result<std::unique_ptr<Host>> Host::make(const Options& options, const ServerTraits& server) {
    block_signals();
    std::unique_ptr<Host> host(new Host);
    host->verb_ = options.verb;
    host->stop_signal_ = server.stop_signal;
    const auto here = network_namespace();
    if (!here)
        return std::unexpected(here.error());
    host->control_path_ = options.control.empty() ? fmt::format("{}/{}{}-{}.sock", options.gate.runtime_dir,
                                                                control_prefix, *here, getpid())
                                                  : options.control;

    // Whatever the agent does, it does beside a server that serves; and one that asks for short turns has
    // them soon, as a closed gate needs.
    take_short_turns();
    auto loop = Loop::make();
    if (!loop)
        return std::unexpected(loop.error());
    host->loop_ = std::move(*loop);
    auto registry = Registry::announce(*host->loop_, options.verb, host->control_path_);
    if (!registry)
        return std::unexpected(registry.error());
    host->registry_ = std::move(*registry);
    auto sockets = open_sock_diag();
    if (!sockets)
        return std::unexpected(sockets.error());
    host->sockets_ = std::move(*sockets);
    if (!options.gate.ports.empty())
        if (const auto r = host->claim(options, server); !r)
            return std::unexpected(r.error());

    if (const auto swept = sweep(options.gate); swept)
        for (const std::string& what : *swept)
            spdlog::info("removed {}", what);
    else
        spdlog::warn("what a killed agent may have left could not be looked for: {}", swept.error().message);

    const Time since = Clock::now();
    auto transparent = Transparent::make(
        *host->loop_, options.transparent, server.transparent, *host->registry_, [&](bool asked_for) {
            return host->wait_to_claim(since +
                                       (asked_for ? options.wait_for_ports
                                                  : std::min(options.wait_for_ports, transparent_patience)));
        });
    if (!transparent)
        return std::unexpected(transparent.error());
    host->transparent_ = std::move(*transparent);

    const auto divert = host->transparent_->divert();
    auto gate = make_gate(*host->loop_, options.gate, host->registry_->id(), *host->sockets_, divert);
    if (!gate)
        return std::unexpected(gate.error());
    host->gate_ = std::move(*gate);
    if (options.verb != "run" || divert) // a server that `run` starts need not wait for it
        if (const auto r = host->gate_->complete(); !r)
            return std::unexpected(r.error());
    if (divert && !host->by_bpf())
        if (const auto r = host->divert_by_iptables(*divert, options.gate.lease); !r)
            return std::unexpected(r.error());
    if (const std::string why = host->gate_->status().no_divert_because; !why.empty())
        if (const auto r = host->transparent_->give_up(*host->registry_, {Exit::impossible, why, 0}); !r)
            return std::unexpected(r.error());
    if (const auto r = host->make_steerer(options); !r)
        return std::unexpected(r.error());
    if (const auto r = host->open_control(); !r)
        return std::unexpected(r.error());
    host->transparent_->report_obstacles(host->gate_->status());
    give_up_privileges(options, host->gate_->status().mode, server, host->control_path_);
    return host;
}

bool Host::by_bpf() const {
    return gate_->status().mode == "bpf";
}

Result<void> Host::divert_by_iptables(const DivertOptions& divert, Duration lease) {
    auto made = IptablesDivert::put_up(*loop_, *gate_, *sockets_,
                                       {.divert = divert,
                                        .owner_id = registry_->id(),
                                        .variant = gate_->status().hook,
                                        .ipv6 = transparent_->has_ipv6(),
                                        .lease = lease});
    if (!made)
        return transparent_->give_up(*registry_, made.error());
    divert_ = std::move(*made);
    return {};
}

void Host::follow_listeners() {
    if (divert_)
        divert_->follow();
}

GateStatus Host::gate_status() const {
    GateStatus status = gate_->status();
    if (divert_)
        status.divert_verdicts = divert_->verdicts();
    return status;
}

Result<std::unique_ptr<Steering>> Host::make_steering(const Options& options, bool needed) {
    if (!by_bpf()) // who does without BPF does so altogether
        return make_iptables_steering(*loop_, {.owner_id = registry_->id(),
                                               .variant = gate_->status().hook,
                                               .lease = options.gate.lease,
                                               .at_once = needed,
                                               .gate_is_closed = [this] { return gate_->is_closed(); }});
    if (switched_off(feature::sk_lookup))
        return failure(Exit::impossible, fmt::format("sk_lookup is {}", off_text));
    return make_bpf_steering({.pins = gate_->status().pins, .owner_id = registry_->id()});
}

// By a signal that waits to be handled.
bool Host::told_to_stop() const {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1 ||
           (stop_signal_ != 0 && sigismember(&pending, stop_signal_) == 1);
}

// False: not any longer.
bool Host::wait_to_claim(Time deadline) {
    if (Clock::now() >= deadline || told_to_stop())
        return false;
    loop_->run_until([this] { return told_to_stop(); }, std::min(deadline, Clock::now() + claim_again_after),
                     claim_again_after);
    return true;
}

// What would fail once the ports are ours is to fail while the other agent still serves.
Result<void> Host::rehearse(const Options& options, const ServerTraits& server) {
    auto gate = make_gate(*loop_, options.gate, registry_->id(), *sockets_);
    const auto complete = gate ? (*gate)->complete() : std::unexpected(gate.error());
    if (!complete)
        return complete;
    gate->reset();
    if (const auto r = open_control(); !r)
        return r;
    return server.check ? server.check(*loop_, *sockets_, [this] { return told_to_stop(); }) : Result<void>{};
}

// An agent that stops gives its ports up when its server listens no more, which may be long before it ends.
Result<void> Host::claim(const Options& options, const ServerTraits& server) {
    auto r = registry_->claim(options.gate.ports);
    if (!r && r.error().exit == Exit::busy && options.wait_for_ports > Duration::zero()) {
        if (auto rehearsed = rehearse(options, server); !rehearsed)
            return rehearsed;
        const Time deadline = Clock::now() + options.wait_for_ports;
        spdlog::info("waiting for the ports, for at most {}: {}", format_duration(options.wait_for_ports),
                     r.error().message);
        registry_->wait_for(options.gate.ports);
        while (!r && r.error().exit == Exit::busy && wait_to_claim(deadline))
            r = registry_->claim(options.gate.ports);
        registry_->wait_for({});
    }
    return r;
}

bool Host::has_successor(const PortSet& ports) {
    // One that has got them asks no more, and is not asked while the gate is closed: it may be busy.
    if (successors_.empty())
        for (const Peer& peer : registry_->successors(ports))
            successors_.push_back(peer.id);
    return std::ranges::any_of(successors_, is_alive);
}

void Host::give_up_claims() {
    transparent_->lend();
    (void)registry_->claim({}); // giving up fails for nobody
}

Result<void> Host::make_steerer(const Options& options) {
    const bool needed =
        options.verb == "flip" || (options.verb == "run" && options.gate.flip == Flip::always);
    if (!needed && (options.verb != "run" || options.gate.flip == Flip::never))
        return {};
    auto steering = make_steering(options, needed);
    if (!steering && needed)
        return std::unexpected(steering.error());
    if (!steering) {
        spdlog::info("reloads go behind a closed gate, new connections cannot be steered here: {}",
                     steering.error().message);
        return {};
    }
    steering_ = std::move(*steering);
    steerer_ = std::make_unique<Steerer>(*steering_, *sockets_);
    // Rules of iptables take their time, and lead to a port whoever listens there: not in a window.
    if (const auto r = steerer_->follow_on(*loop_, [this] { return !by_bpf() && gate_->is_closed(); }); !r)
        return r;
    return {};
}

// Pids, as their own PID namespaces number them.
nlohmann::json Host::awaited_by() const {
    nlohmann::json pids = nlohmann::json::array();
    // While the gate is closed nobody is asked, who may be busy.
    if (registry_->claimed().empty() || gate_->status().closed)
        return pids;
    for (const Peer& peer : registry_->successors(registry_->claimed()))
        pids.push_back(peer.pid);
    return pids;
}

Result<void> Host::open_control() {
    if (control_)
        return {};
    auto control = ControlServer::start(
        *loop_, control_path_,
        [this](const nlohmann::json& request, const Reply& reply) { answer(request, reply); });
    if (!control)
        return std::unexpected(control.error());
    control_ = std::move(*control);
    return {};
}

void Host::answer(const nlohmann::json& request, const Reply& reply) {
    if (!handler_)
        return reply(
            {{"ok", false},
             {"exit", static_cast<int>(Exit::busy)},
             {"message", "this agent serves nobody yet: it starts, or waits for another one's ports"}});
    handler_(request, [this, reply](nlohmann::json answer) {
        if (answer.contains("gate")) {
            answer["agent"] = {{"version", SYNGATE_VERSION},
                               {"command", verb_},
                               {"pid", getpid()},
                               {"id", fmt::format("{:016x}", registry_->id())},
                               {"control", control_path_},
                               {"capabilities", held_privileges()},
                               {"awaited_by", awaited_by()}};
            answer["transparent"] = transparent_->status(gate_status());
        }
        reply(answer);
    });
}

} // namespace syngate
