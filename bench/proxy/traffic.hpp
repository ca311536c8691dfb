// SPDX-License-Identifier: GPL-2.0-or-later
// Traffic that is limited by the machine, not by a schedule: what a packet costs shows in how much goes
// through.
#pragma once

#include "common/result.hpp"
#include "netns/proxy_scene.hpp"

#include <functional>
#include <vector>

namespace syngate::bench {

// What went through, in how much time, and how much CPU time of the whole machine that took.
struct Traffic {
    std::uint64_t served = 0, failed = 0;
    double short_seconds = 0, short_cpu_seconds = 0;
    double bytes = 0;
    double bulk_seconds = 0, bulk_cpu_seconds = 0;

    Traffic& operator+=(const Traffic& other);
    [[nodiscard]] Json json() const;
};

// One connection after the other by each of a few clients, a request and an answer on each, for a while.
// `expected` is the answer's body.
Traffic short_connections(const live::Namespace& client, const live::robust::Target& to,
                          const std::string& expected, Duration length);

// One connection from the client to `to`, of which `listener` is given the other end and sends as fast as it
// can.
Traffic bulk(const live::Namespace& client, const live::robust::Target& to,
             const live::robust::Listener& listener, Duration length);

// Things that stand side by side all the time, and carry traffic in turns.
struct Way {
    std::string name;
    std::function<Traffic(Duration)> carry;
};

struct Turns {
    Duration slice{}; // of each kind of traffic
    int count = 0;    // of each way
};

// A machine's speed differs by a third from one second to the next where others use it, too: so each way has
// its turn in the same tenths of a second, and every other time the other way round. In the ways' order.
std::vector<Json> carry_by_turns(const std::vector<Way>& ways, const Turns& turns);

} // namespace syngate::bench
