// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate run`: a server in the foreground, reloaded on request, stopped gracefully.
#pragma once

#include "event/loop.hpp"
#include "reload/manual_gate.hpp"
#include "reload/protocol.hpp"
#include "reload/requests.hpp"
#include "reload/succession.hpp"
#include "server/path_watch.hpp"
#include "server/server.hpp"

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace syngate {

// For those who follow from outside.
struct SupervisorEvents {
    std::function<void(Generation, const Outcome& last)> serving = [](Generation, const Outcome&) {};
    std::function<void(const std::string& action)> reloading = [](const std::string&) {}; // or restarting
    std::function<void()> stopping = [] {};
};

struct SupervisorOptions {
    ProtocolOptions protocol; // its `cancelled` is set here
    Duration stop_timeout = std::chrono::seconds(295);
    std::vector<std::string> watch;
    Duration watch_quiet = std::chrono::milliseconds(100);
    // Called when the set of ports on which the server listens may have changed; an error ends start-up,
    // later it is logged.
    std::function<Result<void>(const PortSet&)> claim = [](const PortSet&) { return Result<void>{}; };
    // Whether another agent takes over, by waiting for these ports or having them by now. Asked when
    // stopping.
    std::function<bool(const PortSet&)> successor = [](const PortSet&) { return false; };
    // Nobody listens here any more: others may have what was claimed.
    std::function<void()> give_up = [] {};
    SupervisorEvents events;
};

class Supervisor {
public:
    Supervisor(Loop& loop, Gate& gate, Sockets& sockets, Server& server, SupervisorOptions options);

    // Watches the signals and paths. Before anything is started.
    Result<void> prepare();
    // From the server's start to its end. The process's exit status.
    Result<int> run();

    // One request of the control socket.
    void handle(const nlohmann::json& request, std::function<void(const nlohmann::json&)> reply);
    [[nodiscard]] nlohmann::json status();

private:
    void on_stop_signal(const char* name);
    void on_release_signal(const char* name);
    Result<void> watch_signals();
    void run_batch();
    int stop();
    [[nodiscard]] std::unique_ptr<Succession> hand_over(const PortSet& ports);
    bool give_up_ports(const PortSet& ports, Time deadline);
    [[nodiscard]] bool listens_on(Generation generation, const PortSet& ports);
    void end_retiring(Time deadline);
    PortSet listening();
    PortSet left_out();
    void tell_what_is_left_out();
    PortSet ours();
    [[nodiscard]] PortSet flipped() const;
    Result<void> close_by_hand(const nlohmann::json& request);
    Result<void> flip_by_hand(const nlohmann::json& request);

    Loop& loop_;
    Gate& gate_;
    Sockets& sockets_;
    Server& server_;
    SupervisorOptions options_;
    Protocol protocol_;
    ManualGate manual_;
    ReloadRequests requests_;
    std::vector<Source> signals_;
    std::unique_ptr<PathWatch> watch_;
    int stop_signals_ = 0;
    Outcome last_;
    std::size_t runs_ = 0;
    std::size_t failures_ = 0;
    bool running_ = false; // the protocol
    bool claimed_ = false;
    PortSet told_left_out_;
};

} // namespace syngate
