// SPDX-License-Identifier: GPL-2.0-or-later
// Rules that are in force as long as their agent lives and serves its loop, and for a while after: what is
// intercepted or flipped must not lead nowhere for ever when nobody looks after it.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "event/loop.hpp"
#include "iptables/rules.hpp"
#include "iptables/tool.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace syngate {

struct StandingOptions {
    std::vector<Tool> tools;
    std::uint64_t owner = 0;
    std::string table;
    rules::Parts parts;  // the chains that the rules are in
    std::string purpose; // of the list's name
    rules::LeaseBy lease_by = rules::LeaseBy::recent;
    Duration lease{}; // from the agent's last sign of life
};

class StandingRules {
public:
    // lease: a match that every rule has which is to end with the agent. with_jumps: the chains are not there
    // yet, nor what leads to them.
    using Text = std::function<std::string(const Tool&, const std::string& lease, bool with_jumps)>;

    // Puts nothing into place. The lease is renewed from the loop, ten times as often as it has to be; rules
    // that somebody else has taken away are put back then.
    static Result<std::unique_ptr<StandingRules>> make(Loop& loop, StandingOptions options);

    // In place of what was there, in one step for each family. On an error everything is as before.
    Result<void> apply(Text text, const std::string& what);
    // To be told when they are gone by other means.
    void forget();
    [[nodiscard]] bool are_there() const { return static_cast<bool>(text_); }
    [[nodiscard]] const StandingOptions& options() const { return options_; }

private:
    explicit StandingRules(StandingOptions options) : options_(std::move(options)) {}
    [[nodiscard]] std::string list_of(const Tool& tool) const;
    [[nodiscard]] std::string lease_of(const Tool& tool) const;
    [[nodiscard]] Result<void> grant() const;
    Result<void> put(const Tool& tool, const Text& text, const std::string& what, bool with_jumps) const;
    Result<void> put_back();
    void renew();

    StandingOptions options_;
    Text text_; // empty: they are not there
    std::string what_;
    std::set<bool> leased_; // of IPv6 or not, what has a lease
    Source renewal_;
    bool renewed_ = true;
};

} // namespace syngate
