// SPDX-License-Identifier: GPL-2.0-or-later
// The verbs that ask a living agent: reload, restart, status, open, and close where there is one.
#include "cli/ask.hpp"

#include "cli/commands.hpp"
#include "cli/status_text.hpp"
#include "control/control_client.hpp"
#include "control/registry.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace syngate {
namespace {

// A reload takes as long as its server takes, and the agent bounds every step itself. Everything else is
// answered at once, unless the agent is stopped or hung.
Duration answer_timeout(const std::string& verb) {
    return verb == "reload" || verb == "restart" ? Duration(std::chrono::hours(1))
                                                 : Duration(std::chrono::seconds(10));
}

bool can_answer(const Peer& peer, const std::string& verb) {
    if (verb == "reload" || verb == "restart")
        return peer.command == "run";
    if (verb == "open" || verb == "close")
        return peer.command == "run" || peer.command == "close";
    if (verb == "flip")
        return peer.command == "run" || peer.command == "flip";
    return peer.command != "cleanup"; // an agent for a moment, which has no control socket
}

} // namespace

Result<std::string> find_control(const std::string& control, const std::string& verb) {
    if (!control.empty())
        return control;
    auto peers = find_peers();
    if (!peers)
        return std::unexpected(peers.error());
    std::erase_if(*peers, [&](const Peer& peer) { return !can_answer(peer, verb); });
    if (peers->size() == 1)
        return peers->front().control_path;
    if (peers->empty())
        return failure(Exit::failed,
                       fmt::format("no agent that can {} runs in this network namespace; start one with "
                                   "`syngate run`, or name its socket with --control PATH",
                                   verb));
    std::string all;
    for (const Peer& peer : *peers)
        all += fmt::format("\n  --control {}   (syngate {}, pid {}, ports {})", peer.control_path,
                           peer.command, peer.pid, format_ports(peer.ports));
    return failure(Exit::usage, "several agents run in this network namespace, name one:" + all);
}

Result<int> ask_and_print(const std::string& control, const nlohmann::json& request, bool as_json) {
    const auto answer = ask(control, request, answer_timeout(request.value("verb", "")));
    if (!answer)
        return std::unexpected(answer.error());
    const int status = answer->value("exit", static_cast<int>(Exit::failed));
    if (as_json)
        fmt::print("{}\n", answer->dump());
    else if (status == 0)
        fmt::print("{}\n", describe(*answer));
    else
        return failure(static_cast<Exit>(status), answer->value("message", "the agent gave no reason"));
    return status;
}

Result<int> command_ask(const Options& options) {
    const auto control = find_control(options.control, options.verb);
    if (!control)
        return std::unexpected(control.error());
    return ask_and_print(*control, {{"verb", options.verb}}, options.json);
}

} // namespace syngate
