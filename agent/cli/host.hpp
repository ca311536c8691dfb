// SPDX-License-Identifier: GPL-2.0-or-later
// What every verb that holds a gate stands on: the loop, the claim, the gate, the control socket.
#pragma once

#include "base/result.hpp"
#include "cli/options.hpp"
#include "cli/transparent.hpp"
#include "control/control_server.hpp"
#include "control/registry.hpp"
#include "event/loop.hpp"
#include "gate/gate.hpp"
#include "iptables/iptables_divert.hpp"
#include "net/sock_diag.hpp"
#include "reload/steerer.hpp"
#include "steer/steering.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace syngate {

// Of the server that is to be run.
struct ServerTraits {
    bool transparent = false; // what --transparent auto goes by
    bool withhold = false;    // it has no use for what capabilities are there for the agent alone
    bool uses_bpf = false;    // but for CAP_BPF
    int stop_signal = 0; // its own graceful stop, which is the agent's as well; 0: SIGTERM and SIGINT alone
    // What can be told of it without starting it. Asked before the agent waits for another one's ports: that
    // one stops when somebody waits.
    std::function<Result<void>(Loop&, Sockets&, const std::function<bool()>& cancelled)> check;
};

class Host {
public:
    // Announces the agent, claims options.gate.ports, sweeps what dead agents left, makes the gate, opens the
    // control socket, gives up the capabilities that are not needed any more. On an error nothing stays, but
    // for the capabilities.
    static Result<std::unique_ptr<Host>> make(const Options& options, const ServerTraits& server = {});

    // Whether another agent waits for these ports, and who gets them when this one gives up its claims.
    [[nodiscard]] bool has_successor(const PortSet& ports);
    // Ports and transparent proxying, which goes on for connections that are left.
    void give_up_claims();
    // To be called when the server may have another configuration.
    void look_at_server(bool transparent) { transparent_->look_again(transparent); }
    // To be called when the server may listen on others than before.
    void follow_listeners();
    [[nodiscard]] bool by_bpf() const;

    // Null where nothing can be steered, with --policy hold and drop, and for verbs that have no use for it.
    Steerer* steerer() { return steerer_.get(); }

    // Answers requests from now on, which were refused until then; status answers get the agent's own part
    // added.
    void serve(std::function<void(const nlohmann::json&, Reply)> handler) { handler_ = std::move(handler); }

    // Before what the handler refers to goes away.
    void stop_serving() { control_.reset(); }

    Loop& loop() { return *loop_; }
    Gate& gate() { return *gate_; }
    Sockets& sockets() { return *sockets_; }
    Registry& registry() { return *registry_; }
    [[nodiscard]] const std::string& control_path() const { return control_path_; }

private:
    Result<void> divert_by_iptables(const DivertOptions& divert, Duration lease);
    Result<std::unique_ptr<Steering>> make_steering(const Options& options, bool needed);
    Result<void> make_steerer(const Options& options);
    [[nodiscard]] GateStatus gate_status() const; // with what is diverted
    Result<void> open_control();
    void answer(const nlohmann::json& request, const Reply& reply);
    Result<void> claim(const Options& options, const ServerTraits& server);
    Result<void> rehearse(const Options& options, const ServerTraits& server);
    bool wait_to_claim(Time deadline);
    [[nodiscard]] bool told_to_stop() const;
    [[nodiscard]] nlohmann::json awaited_by() const;

    std::string verb_;
    int stop_signal_ = 0;
    std::string control_path_;
    std::vector<std::uint64_t> successors_; // ids of those who waited when it was asked for
    std::function<void(const nlohmann::json&, Reply)> handler_;
    // In this order: the gate goes before the claim, so that nobody takes the ports while ours is attached.
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<Registry> registry_;
    std::unique_ptr<Sockets> sockets_;
    std::unique_ptr<Transparent> transparent_;
    std::unique_ptr<Gate> gate_;
    std::unique_ptr<IptablesDivert> divert_; // null: not by iptables
    std::unique_ptr<Steering> steering_;
    std::unique_ptr<Steerer> steerer_;
    std::unique_ptr<ControlServer> control_;
};

} // namespace syngate
