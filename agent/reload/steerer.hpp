// SPDX-License-Identifier: GPL-2.0-or-later
// Who wants what steered: a reload its server's ports, for its own time, and a person a port to another one's
// listeners, until it is cleared. Both end in one set of rules.
#pragma once

#include "event/loop.hpp"
#include "net/sock_diag.hpp"
#include "reload/listening.hpp"
#include "steer/steering.hpp"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

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

    // From now on what is flipped follows the listeners of its ports, as they come and go; not while `paused`
    // says so.
    Result<void> follow_on(Loop& loop, std::function<bool()> paused);
    // One look: steers anew if they are others than before.
    void follow();

    // Adds to what is flipped, or changes it, in one step. An error when nobody listens on one of the new
    // ports; nothing has changed then.
    Result<void> flip(const PortFlips& flips);
    // Ports that are not flipped: an error. Empty: all of them.
    Result<void> clear(const PortSet& ports);
    [[nodiscard]] const PortFlips& flips() const { return flips_; }
    // What clients connect to whom these ports' listeners get.
    [[nodiscard]] PortSet fronts_of(const PortSet& targets) const;

    [[nodiscard]] SteeringStatus status() const { return steering_.status(); }

private:
    struct Reload {
        Listeners to;
        PortSet ports;
        Listeners gone;
    };
    Result<void> apply(const PortFlips& flips, const Reload& reload, bool all_must_listen);
    void set_flips(PortFlips flips);
    Steering& steering_;
    Sockets& sockets_;
    PortFlips flips_;
    Reload reload_;                      // empty between reloads
    std::set<std::uint64_t> flipped_to_; // cookies, when it was applied last
    Source follower_;
};

nlohmann::json to_json(const Steerer& steerer);

} // namespace syngate
