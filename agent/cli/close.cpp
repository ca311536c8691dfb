// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate close`: asks the living agent, or, where none lives, stays behind as one until the gate is open
// again.
#include "cli/ask.hpp"
#include "cli/commands.hpp"
#include "cli/host.hpp"
#include "cli/stay_behind.hpp"
#include "control/registry.hpp"
#include "gate/gate_json.hpp"
#include "reload/manual_gate.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>
#include <string>

namespace syngate {
namespace {

nlohmann::json refusal(const Error& error) {
    return {{"ok", false}, {"exit", static_cast<int>(error.exit)}, {"message", error.message}};
}

void answer(Host& host, ManualGate& manual, const std::string& verb, const Reply& reply) {
    if (verb == "status")
        return reply({{"ok", true}, {"exit", 0}, {"gate", to_json(host.gate().status())}});
    if (verb != "open")
        return reply(refusal({Exit::busy, "the gate is closed by hand; `syngate open` opens it"}));
    const auto window = manual.open();
    if (!window)
        return reply(refusal(window.error()));
    nlohmann::json json = to_json(*window);
    json.update({{"ok", true}, {"exit", 0}, {"message", "open"}});
    reply(json);
}

// Closes, tells `ready`, and serves until the gate is open again.
Result<void> hold_closed(const Options& options, const std::function<void()>& ready) {
    auto host = Host::make(options);
    if (!host)
        return std::unexpected(host.error());
    Loop& loop = (*host)->loop();
    ManualGate manual(loop, (*host)->gate());
    (*host)->serve([&](const nlohmann::json& request, const Reply& reply) {
        answer(**host, manual, request.value("verb", ""), reply);
    });
    std::vector<Source> signals;
    for (const int signal : {SIGTERM, SIGINT}) {
        auto source = loop.on_signal(signal, [&](const auto&) { (void)manual.open(); });
        if (!source)
            return std::unexpected(source.error());
        signals.push_back(std::move(*source));
    }
    if (const auto r = manual.close(options.gate.ports, options.gate.policy, options.gate.lease); !r)
        return r;
    ready();
    loop.run_until([&] { return !manual.is_closed(); }, Time::max());
    (*host)->stop_serving();
    return {};
}

} // namespace

Result<int> command_close(const Options& options) {
    auto peers = find_peers();
    if (!peers)
        return std::unexpected(peers.error());
    const bool living = std::ranges::any_of(*peers, [](const Peer& peer) { return peer.command == "run"; });
    if (!options.control.empty() || living) {
        const auto control = find_control(options.control, "close");
        if (!control)
            return std::unexpected(control.error());
        return ask_and_print(
            *control, {{"verb", "close"}, {"ports", options.ports_text}, {"lease", options.lease_text}},
            options.json);
    }
    if (options.gate.ports.empty())
        return failure(Exit::usage,
                       "no agent runs here, so `syngate close` must know the ports: --ports 80,443");
    return stay_behind(
        [&](const std::function<void(const std::string&)>& ready) {
            return hold_closed(options, [&] { ready("closed"); });
        },
        options.json);
}

} // namespace syngate
