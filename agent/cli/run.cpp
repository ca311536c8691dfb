// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"
#include "cli/host.hpp"
#include "reload/supervisor.hpp"
#include "server/recipe.hpp"
#include "server/supervised_server.hpp"

#include <spdlog/spdlog.h>

namespace syngate {
namespace {

SupervisorOptions supervisor_options(const Options& o, Host& host) {
    SupervisorOptions s;
    s.protocol.ports = o.gate.ports;
    s.protocol.policy = o.gate.policy;
    s.protocol.flip = o.gate.flip;
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
    s.claim = [&host](const PortSet& ports) { return host.registry().claim(ports); };
    return s;
}

} // namespace

Result<int> command_run(const Options& options) {
    auto recipe = make_recipe(options.command, {options.reload, options.check, options.stop_signal});
    if (!recipe)
        return std::unexpected(recipe.error());
    auto host = Host::make(options);
    if (!host)
        return std::unexpected(host.error());
    auto children = Children::start((*host)->loop());
    if (!children)
        return std::unexpected(children.error());
    const auto server = make_supervised_server(**children, (*host)->sockets(), std::move(*recipe));
    Supervisor supervisor((*host)->loop(), (*host)->gate(), (*host)->sockets(), *server,
                          supervisor_options(options, **host));
    if (const auto r = supervisor.prepare(); !r)
        return std::unexpected(r.error());
    const auto served = (*host)->serve([&supervisor](const nlohmann::json& request, Reply reply) {
        supervisor.handle(request, std::move(reply));
    });
    if (!served)
        return std::unexpected(served.error());
    spdlog::info("control socket {}", (*host)->control_path());
    auto status = supervisor.run();
    (*host)->stop_serving();
    return status;
}

} // namespace syngate
