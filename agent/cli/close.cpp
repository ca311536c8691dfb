// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate close`: asks the living agent, or, where none lives, stays behind as one until the gate is open
// again.
#include "base/fd.hpp"
#include "cli/ask.hpp"
#include "cli/commands.hpp"
#include "cli/host.hpp"
#include "control/registry.hpp"
#include "gate/gate_json.hpp"
#include "reload/manual_gate.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <string>
#include <unistd.h>

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
    const auto served = (*host)->serve([&](const nlohmann::json& request, const Reply& reply) {
        answer(**host, manual, request.value("verb", ""), reply);
    });
    if (!served)
        return served;
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

// In the child: the outcome goes to the parent as JSON through `report`.
[[noreturn]] void be_holder(const Options& options, Fd report) {
    const auto tell = [&](const nlohmann::json& json) {
        const std::string text = json.dump();
        if (write(report.get(), text.data(), text.size()) < 0)
            _exit(static_cast<int>(Exit::failed));
        report.reset();
    };
    setsid();
    // The caller's files and pipes must not wait for us: its standard ones go once the answer is out.
    const int kept = report.get();
    if (kept > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, static_cast<unsigned>(kept - 1), 0);
    close_range(static_cast<unsigned>(kept + 1), ~0U, 0);
    const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    const auto r = hold_closed(options, [&] {
        dup2(null.get(), STDIN_FILENO);
        dup2(null.get(), STDOUT_FILENO);
        dup2(null.get(), STDERR_FILENO);
        tell({{"ok", true}, {"exit", 0}, {"message", "closed"}});
    });
    if (!r && report)
        tell(refusal(r.error()));
    _exit(r ? 0 : static_cast<int>(r.error().exit));
}

Result<nlohmann::json> start_holder(const Options& options) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) < 0)
        return system_failure("cannot make a pipe", errno);
    const Fd in(ends[0]);
    Fd out(ends[1]);
    const pid_t child = fork();
    if (child < 0)
        return system_failure("cannot start the process that holds the gate", errno);
    if (child == 0)
        be_holder(options, std::move(out));
    out.reset();
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t n = 0; (n = read(in.get(), buffer.data(), buffer.size())) > 0;)
        text.append(buffer.data(), static_cast<std::size_t>(n));
    auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_discarded())
        return failure(Exit::failed, "the process that holds the gate ended without a word");
    return json;
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
    const auto answer = start_holder(options);
    if (!answer)
        return std::unexpected(answer.error());
    const int status = answer->value("exit", static_cast<int>(Exit::failed));
    if (status != 0 && !options.json)
        return failure(static_cast<Exit>(status), answer->value("message", ""));
    fmt::print("{}\n", options.json ? answer->dump() : answer->value("message", ""));
    return status;
}

} // namespace syngate
