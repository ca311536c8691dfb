// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate flip`: asks the living agent, or, where none lives, stays behind as one until nothing is flipped
// any more.
#include "cli/ask.hpp"
#include "cli/commands.hpp"
#include "cli/host.hpp"
#include "cli/stay_behind.hpp"
#include "control/registry.hpp"
#include "gate/gate_json.hpp"
#include "reload/flip_request.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>

namespace syngate {
namespace {

void answer(Host& host, const nlohmann::json& request, const Reply& reply) {
    const std::string verb = request.value("verb", "");
    if (verb == "status")
        return reply({{"ok", true},
                      {"exit", 0},
                      {"gate", to_json(host.gate().status())},
                      {"steering", to_json(*host.steerer())}});
    Result<void> r = failure(Exit::busy, "this agent only flips ports; `syngate flip --clear` ends it");
    if (verb == "flip")
        r = run_flip_request(*host.steerer(), request, [&](PortSet ports) {
            for (const auto& [port, target] : host.steerer()->flips())
                ports.insert(port);
            return host.registry().claim(ports);
        });
    if (!r)
        return reply(
            {{"ok", false}, {"exit", static_cast<int>(r.error().exit)}, {"message", r.error().message}});
    reply({{"ok", true}, {"exit", 0}, {"message", describe(*host.steerer())}});
}

// Flips, tells `ready`, and serves until nothing is flipped.
Result<void> keep_flipped(const Options& options, const std::function<void(const std::string&)>& ready) {
    auto host = Host::make(options);
    if (!host)
        return std::unexpected(host.error());
    (*host)->serve(
        [&](const nlohmann::json& request, const Reply& reply) { answer(**host, request, reply); });
    bool stop = false;
    std::vector<Source> signals;
    for (const int signal : {SIGTERM, SIGINT}) {
        auto source = (*host)->loop().on_signal(signal, [&](const auto&) { stop = true; });
        if (!source)
            return std::unexpected(source.error());
        signals.push_back(std::move(*source));
    }
    if (const auto r = (*host)->steerer()->flip(options.flips); !r)
        return r;
    ready(describe(*(*host)->steerer()));
    (*host)->loop().run_until([&] { return stop || (*host)->steerer()->flips().empty(); }, Time::max());
    (*host)->stop_serving();
    return {};
}

} // namespace

Result<int> command_flip(const Options& options) {
    const auto peers = find_peers();
    if (!peers)
        return std::unexpected(peers.error());
    const bool living = std::ranges::any_of(
        *peers, [](const Peer& peer) { return peer.command == "run" || peer.command == "flip"; });
    if (!options.control.empty() || living || options.clear) {
        const auto control = find_control(options.control, "flip");
        if (!control)
            return std::unexpected(control.error());
        return ask_and_print(*control,
                             options.clear ? clear_request(options.cleared) : flip_request(options.flips),
                             options.json);
    }
    return stay_behind(
        [&](const std::function<void(const std::string&)>& ready) { return keep_flipped(options, ready); },
        options.json);
}

} // namespace syngate
