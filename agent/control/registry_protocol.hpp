// SPDX-License-Identifier: GPL-2.0-or-later
// What agents say to each other. A connection to an agent's abstract SOCK_SEQPACKET socket is answered with
// one JSON message and closed; the one who asks sends nothing. An agent that is claiming ports binds its own
// end to a name that says so.
#pragma once

#include "control/registry.hpp"
#include "control/unix_socket.hpp"

#include <compare>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace syngate::registry {

// The age of an announcement: the lesser is the older, and wins.
struct Age {
    std::uint64_t since_ns = 0;
    std::uint64_t id = 0;
    auto operator<=>(const Age&) const = default;
};

struct Statement {
    Peer peer;        // peer.ports are settled: they stay until their owner gives them up
    PortSet claiming; // wanted in addition, not settled yet
    bool claiming_transparent = false;
    [[nodiscard]] Age age() const { return {peer.since_ns, peer.id}; }
};

// The longest message: every port that cannot be folded takes six bytes.
constexpr int max_message = 512 * 1024;

std::string to_message(const Statement& statement);
// Empty for what no agent would say.
std::optional<Statement> parse_message(std::string_view message);

std::string agent_name(std::uint64_t id);
// random keeps one claimant's connections apart.
std::string claimant_name(const Age& age, std::uint64_t random);
std::optional<Age> parse_claimant_name(std::string_view name);

// The ids of the listening agents in the network namespace, whoever owns them.
Result<std::set<std::uint64_t>> list_ids();

// From getrandom(2), never 0.
Result<std::uint64_t> random_id();

} // namespace syngate::registry
