// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"
#include "cli/host.hpp"
#include "event/service_manager.hpp"
#include "probe/capabilities.hpp"
#include "reload/supervisor.hpp"
#include "server/backing_ports.hpp"
#include "server/pid_file.hpp"
#include "server/recipe.hpp"
#include "server/supervised_server.hpp"

#include <cerrno>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace syngate {
namespace {

// A server that cannot listen beside its predecessor gets two ports that clients never see.
Result<PortSet> backing_ports(const Options& options, const Recipe& recipe) {
    if (options.gate.flip != Flip::always || recipe.reload == ReloadHow::overlap || recipe.stays_up) {
        if (!options.flip_ports.empty())
            return failure(Exit::usage, "--flip-ports is for --policy flip and a server that is restarted");
        if (with_backing_port(options.command, 0) != options.command)
            return failure(Exit::usage,
                           fmt::format("{{{}}} in the server's arguments is for --policy flip and a "
                                       "server that is restarted: no port is given to this one",
                                       backing_port_name));
        return PortSet{};
    }
    if (recipe.reload == ReloadHow::signal)
        return failure(Exit::usage,
                       "a server that reloads itself in its own way cannot be flipped: --policy hold "
                       "covers it");
    if (options.gate.ports.size() != 1)
        return failure(Exit::usage,
                       "with --policy flip a server that cannot listen beside its predecessor is given "
                       "a port of its own, so --ports must name the one that clients connect to");
    return options.flip_ports.empty() ? pick_backing_ports() : options.flip_ports;
}

SupervisorOptions supervisor_options(const Options& o, Host& host, std::uint16_t front) {
    SupervisorOptions s;
    s.protocol.ports = o.gate.ports;
    s.protocol.policy = o.gate.policy;
    s.protocol.front = front;
    // By iptables only ports can be flipped, one to another.
    s.protocol.flip = host.by_bpf() || front != 0 ? o.gate.flip : Flip::never;
    s.protocol.steerer = host.steerer();
    s.protocol.lease = o.gate.lease;
    s.protocol.start_timeout = o.start_timeout;
    s.protocol.swap_timeout = o.swap_timeout;
    s.protocol.end_timeout = o.end_timeout;
    s.protocol.settle = o.settle;
    s.protocol.drain.handshake = o.gate.handshake_timeout;
    s.protocol.drain.finish = o.finish_timeout;
    s.stop_timeout = o.stop_timeout;
    s.watch = o.watch;
    s.claim = [&host](const PortSet& ports) {
        host.follow_listeners();
        return host.registry().claim(ports);
    };
    s.successor = [&host](const PortSet& ports) { return host.has_successor(ports); };
    s.give_up = [&host] { host.give_up_claims(); };
    return s;
}

// Found out at the first reload it would leave two generations.
Result<void> can_signal(const Recipe& recipe) {
    const auto capabilities = effective_capabilities();
    if (!capabilities)
        return std::unexpected(capabilities.error());
    if (!recipe.changes_user || ::geteuid() != 0 || capabilities->kill)
        return {};
    return failure(
        Exit::impossible,
        "CAP_KILL is missing: the server's configuration has it change its user, and no signal would "
        "reach it then, neither to reload nor to stop it; a container takes --cap-add=KILL",
        EPERM);
}

// The server's configuration, while another agent's server serves.
Result<void> check_early(Loop& loop, Sockets& sockets, const Recipe& recipe, const PortSet& backing,
                         const std::function<bool()>& cancelled) {
    const auto children = Children::start(loop);
    if (!children)
        return std::unexpected(children.error());
    return make_supervised_server(**children, sockets, recipe, backing)
        ->check(Clock::now() + ProtocolOptions{}.check_timeout, cancelled);
}

SupervisorEvents events(PidFile& pid_file, const Options& options, Host& host) {
    SupervisorEvents e;
    e.serving = [&pid_file, &options, &host](Generation pid, const Outcome& last) {
        if (const auto now = make_recipe(options.command, {}); now)
            host.look_at_server(now->transparent);
        if (const auto r = pid_file.write(pid); !r)
            spdlog::warn("{}", r.error().message);
        tell_service_manager(ServiceState::ready, fmt::format("server {}; {}", pid, to_text(last)));
    };
    e.reloading = [](const std::string& action) { tell_service_manager(ServiceState::reloading, action); };
    e.stopping = [] { tell_service_manager(ServiceState::stopping, "the server finishes what is open"); };
    return e;
}

} // namespace

Result<int> command_run(const Options& options) {
    if (!options.warning.empty())
        spdlog::warn("{}", options.warning);
    auto recipe = make_recipe(options.command, {options.reload, options.check, options.stop_signal});
    if (!recipe)
        return std::unexpected(recipe.error());
    auto backing = backing_ports(options, *recipe);
    if (!backing)
        return std::unexpected(backing.error());
    if (const auto r = can_signal(*recipe); !r)
        return std::unexpected(r.error());
    const std::uint16_t front = backing->empty() ? std::uint16_t{0} : *options.gate.ports.begin();
    const bool known_kind = recipe->kind != "other";
    auto host = Host::make(
        options, {.transparent = recipe->transparent,
                  .withhold = known_kind,
                  .uses_bpf = recipe->uses_bpf,
                  .stop_signal = recipe->graceful ? recipe->release_signal : 0,
                  .check = [&](Loop& loop, Sockets& sockets, const std::function<bool()>& cancelled) {
                      return check_early(loop, sockets, *recipe, *backing, cancelled);
                  }});
    if (!host)
        return std::unexpected(host.error());
    if (options.gate.flip == Flip::always && front == 0 && !(*host)->by_bpf())
        return failure(
            Exit::impossible,
            "in mode iptables new connections are led from one port to another, so --policy flip is "
            "for a server that is restarted and given a port of its own (--reload restart); for "
            "this one --policy hold or drop will do");
    auto children = Children::start((*host)->loop());
    if (!children)
        return std::unexpected(children.error());
    const auto server =
        make_supervised_server(**children, (*host)->sockets(), std::move(*recipe), std::move(*backing));
    PidFile pid_file(options.pid_file);
    SupervisorOptions with_events = supervisor_options(options, **host, front);
    with_events.events = events(pid_file, options, **host);
    Supervisor supervisor((*host)->loop(), (*host)->gate(), (*host)->sockets(), *server,
                          std::move(with_events));
    if (const auto r = supervisor.prepare(); !r)
        return std::unexpected(r.error());
    (*host)->serve([&supervisor](const nlohmann::json& request, Reply reply) {
        supervisor.handle(request, std::move(reply));
    });
    spdlog::info("control socket {}", (*host)->control_path());
    auto status = supervisor.run();
    (*host)->stop_serving();
    return status;
}

} // namespace syngate
