// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"
#include "cli/host.hpp"
#include "gate/gate_json.hpp"
#include "reload/cover.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {

Result<int> command_exec(const Options& options) {
    auto host = Host::make(options);
    if (!host)
        return std::unexpected(host.error());
    auto children = Children::start((*host)->loop());
    if (!children)
        return std::unexpected(children.error());
    (*host)->serve([&host](const nlohmann::json& request, Reply reply) {
        if (request.value("verb", "") == "status")
            return reply({{"ok", true}, {"exit", 0}, {"gate", to_json((*host)->gate().status())}});
        reply({{"ok", false},
               {"exit", static_cast<int>(Exit::busy)},
               {"message", "`syngate exec` is under way and only answers status"}});
    });

    CoverOptions cover_options;
    cover_options.ports = options.gate.ports;
    cover_options.policy = options.gate.policy;
    cover_options.lease = options.gate.lease;
    cover_options.wait_timeout = options.wait_timeout;
    cover_options.settle = options.exec_settle;
    cover_options.drain.handshake = options.gate.handshake_timeout;
    const auto covered = cover((*host)->loop(), (*host)->gate(), (*host)->sockets(), **children,
                               options.command, cover_options);
    (*host)->stop_serving();
    if (!covered)
        return std::unexpected(covered.error());
    if (covered->outcome.ok())
        spdlog::info("{}", to_text(covered->outcome));
    else
        spdlog::error("{}", to_text(covered->outcome));
    if (options.json) {
        nlohmann::json json = to_json(covered->outcome);
        json["command_exit"] = covered->command.as_exit_code();
        fmt::print("{}\n", json.dump());
    }
    const int status = covered->command.as_exit_code();
    return status != 0 ? status : static_cast<int>(covered->outcome.exit);
}

} // namespace syngate
