// SPDX-License-Identifier: GPL-2.0-or-later
// Transparent proxying of one agent, apart from the programs: the claim on it, the rules and routes, and what
// is in their way.
#pragma once

#include "base/result.hpp"
#include "cli/options.hpp"
#include "control/registry.hpp"
#include "gate/gate.hpp"
#include "route/obstacles.hpp"

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace syngate {

class Transparent {
public:
    // Asked when another agent does it: waits a while and says whether to try again.
    using WaitAgain = std::function<bool(bool asked_for)>;
    // Decides by the wish, and for auto by what the server's configuration needs; claims, sweeps what dead
    // agents left, and sets up the routing. With auto, what is not possible is a warning.
    static Result<std::unique_ptr<Transparent>> make(Loop& loop, const TransparentOptions& options,
                                                     bool server_needs_it, Registry& registry,
                                                     const WaitAgain& again);
    ~Transparent();

    // Lets a successor of this agent take over, while connections that are left need it as well: rules and
    // routes stay until they have ended, and what the successor took over stays as long as that lives.
    void lend();
    // For the programs; empty: off.
    [[nodiscard]] std::optional<DivertOptions> divert() const;
    // Marked packets of IPv6 are routed to this host, as those of IPv4 are.
    [[nodiscard]] bool has_ipv6() const { return routing_ && routing_->no_ipv6_because().empty(); }
    // Who keeps the gate cannot divert. An error where it was asked for, else a warning.
    Result<void> give_up(Registry& registry, const Error& why);
    // The server's configuration may ask for it since the last time: decided at the start, told now.
    void look_again(bool server_needs_it);
    // To be called once the programs or rules are in place: says what is in the way, once for each thing.
    void report_obstacles(const GateStatus& gate) const;
    [[nodiscard]] nlohmann::json status(const GateStatus& gate) const;

private:
    [[nodiscard]] bool is_asked_for() const;
    Result<void> claim_and_set_up();
    void clear_up_after_lenders();
    void clear_up_as_the_last();
    void end();

    TransparentOptions options_;
    std::string off_because_; // off
    std::unique_ptr<PolicyRouting> routing_;
    Registry* registry_ = nullptr; // outlives this
    bool lent_ = false;
    bool needed_ = false;                // by the server's configuration, as it was when last looked at
    std::vector<std::uint64_t> lenders_; // ids of those that stop, and need theirs until then
    OwnRouting lenders_own_;             // with other options than ours
    Source until_lenders_end_;
};

// Rules and routes of agents that are dead; nothing while another agent lives that may own them. Returns one
// line for each thing removed.
Result<std::vector<std::string>> sweep_routing(Registry& registry);

} // namespace syngate
