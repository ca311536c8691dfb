// SPDX-License-Identifier: GPL-2.0-or-later
// One run of the protocol: its steps, each a function, in the order in which they happen.
#pragma once

#include "reload/closed_gate.hpp"
#include "reload/listening.hpp"
#include "reload/protocol.hpp"

namespace syngate {

class Protocol::Run {
public:
    Run(Protocol& protocol, std::string action);

    // ports: on which it has to listen; before: where the old one did, empty if there was none.
    Result<void> start(const PortSet& ports, const std::set<ListenAddress>& before = {});
    Result<void> overlap();
    Result<void> signal();
    Result<void> restart();
    Result<void> blue_green();
    Outcome finish(const Result<void>& result);

private:
    enum class Waited { done, timed_out, cancelled };
    Waited wait(const std::function<bool()>& done, Duration at_most, Duration look_every) const;
    Result<void> stopped(Waited waited, const std::string& what, Duration after) const;

    Result<void> check();
    // What a server that is alone on its ports needs first: check, close in front of all that it listens on,
    // drain. The listeners.
    Result<Listeners> cover(bool finish);
    Result<Listeners> wait_until_listening(Generation generation, const PortSet& ports,
                                           const std::set<ListenAddress>& before);
    // listeners: all of the server's; the ports are some of theirs.
    Result<void> close(const PortSet& listening, const Listeners& listeners);
    Result<void> take_over(const PortSet& ports, const Listeners& before, const Listeners& after);
    Result<void> drain_old(const PortSet& ports, const std::set<std::uint64_t>& listeners, bool finish);
    // Waits for what the old server was told to do; one that does not do it gets SIGTERM, then SIGKILL.
    Waited insist(Generation generation, const std::function<bool()>& done, Duration at_most,
                  const char* undone) const;
    Result<void> wait_until_released(Generation old, const std::set<std::uint64_t>& cookies);
    Result<void> wait_until_ended(Generation generation);
    // at_most: with no change for this long, nothing more is coming.
    Result<void> wait_until_reloaded(Generation generation,
                                     const std::map<pid_t, std::set<std::uint32_t>>& before,
                                     const std::set<ListenAddress>& expected, Duration at_most);
    void abandon(Generation generation) const;
    void open();

    // protocol_flip.cpp. pinned_ afterwards: new connections go to these sockets until unpin(). An error
    // where the reload is not to go on without that.
    Result<void> pin(const Listeners& old);
    Result<void> cannot_flip(const Error& error);
    Result<void> flip(const PortSet& ports, const Listeners& old, const Listeners& fresh);
    void flip_back(const Listeners& old);
    void unpin();
    // before: which process held which sockets.
    Result<void> signal_steered(const Listeners& old, const std::map<pid_t, std::set<std::uint32_t>>& before);

    Protocol& p_;
    Outcome outcome_;
    StepTimer timer_;
    std::optional<ClosedGate> closed_;
    std::optional<Generation> fresh_; // whom new connections were flipped to
    bool pinned_ = false;
    bool flipped_ = false;
};

} // namespace syngate
