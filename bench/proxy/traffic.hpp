// SPDX-License-Identifier: GPL-2.0-or-later
// Traffic that is limited by the machine, not by a schedule: what a packet costs shows in how much goes
// through.
#pragma once

#include "common/result.hpp"
#include "netns/proxy_scene.hpp"

namespace syngate::bench {

// One connection after the other by each of a few clients, a request and an answer on each, for a while.
// `expected` is the answer's body.
Json short_connections(const live::Namespace& client, const live::robust::Target& to,
                       const std::string& expected, Duration length);

// One connection from the client to `to`, of which `listener` is given the other end and sends as fast as it
// can.
Json bulk(const live::Namespace& client, const live::robust::Target& to,
          const live::robust::Listener& listener, Duration length);

} // namespace syngate::bench
