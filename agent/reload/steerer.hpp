// SPDX-License-Identifier: GPL-2.0-or-later
// Who wants what steered: a reload its server's ports, for its own time, and a person a port to another one's
// listeners, until it is cleared. Both end in one set of rules.
#pragma once

#include "net/sock_diag.hpp"
#include "reload/listening.hpp"
#include "steer/steering.hpp"

#include <map>
#include <nlohmann/json.hpp>

namespace syngate {

// What clients connect to, and the port of the listeners that get it.
using PortFlips = std::map<std::uint16_t, std::uint16_t>;

class Steerer {
public:
    Steerer(Steering& steering, Sockets& sockets) : steering_(steering), sockets_(sockets) {}

    // New connections to these ports go to these of the listeners only, in one step. gone: listeners of the
    // same server that are not to get any.
    Result<void> steer(const Listeners& to, const PortSet& ports, const Listeners& gone = {});
    // The kernel's own rules again, or what was flipped.
    void release();

    // Adds to what is flipped, or changes it, in one step. An error when nobody listens on one of the new
    // ports; nothing has changed then.
    Result<void> flip(const PortFlips& flips);
    // Ports that are not flipped: an error. Empty: all of them.
    Result<void> clear(const PortSet& ports);
    [[nodiscard]] const PortFlips& flips() const { return flips_; }

    [[nodiscard]] SteeringStatus status() const { return steering_.status(); }

private:
    Result<void> apply(const PortFlips& flips, const Listeners& to, const PortSet& ports,
                       const Listeners& gone, bool all_must_listen);
    Steering& steering_;
    Sockets& sockets_;
    PortFlips flips_;
};

nlohmann::json to_json(const Steerer& steerer);

} // namespace syngate
