// SPDX-License-Identifier: GPL-2.0-or-later
// Rules that are in force as long as their agent lives and serves its loop, and for a while after: what is
// intercepted or flipped must not lead nowhere for ever when nobody looks after it.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "event/loop.hpp"
#include "iptables/program.hpp"
#include "iptables/rules.hpp"
#include "iptables/rules_presence.hpp"
#include "iptables/tool.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace syngate {

// By whatever the owner of the rules tells apart.
using RuleCounts = std::map<std::string, std::uint64_t>;

struct StandingOptions {
    std::vector<Tool> tools;
    std::uint64_t owner = 0;
    std::string table;
    std::set<std::string> hooks; // whose rules lead to ours
    rules::Parts parts;          // the chains that the rules are in
    std::string purpose;         // of the list's name
    rules::LeaseBy lease_by = rules::LeaseBy::recent;
    Duration lease{}; // the gate's
    // What the rules have counted, in the output of iptables-save.
    std::function<RuleCounts(std::string_view saved, bool ipv6)> counts_in;
    std::function<bool()> gate_is_closed; // nobody waits for a look at the rules then
    // Undoes the first apply(), or what leads to the rules if they were there before it.
    std::function<Result<void>(const Tool&)> take_away;
};

class StandingRules {
public:
    // lease: a match that every rule has which is to end with the agent. with_jumps: with what leads to the
    // chains, else the chains alone are replaced.
    using Text = std::function<std::string(const Tool&, const rules::Made& made, const std::string& lease,
                                           bool with_jumps)>;

    // Puts nothing into place. What is put there lasts three of the gate's leases after the agent's last sign
    // of life, which it gives once in each, from the loop, and while it waits for a program; rules or jumps
    // that somebody else has taken away are put back from the loop.
    static Result<std::unique_ptr<StandingRules>> make(Loop& loop, StandingOptions options);

    // In place of what was there, in one step for each family. On an error everything is as before. Waits for
    // the xtables lock as long as a person would, the first time, and later as long as a loop may.
    Result<void> apply(Text text, const std::string& what);
    // Now, for which no lock is needed: rules that stay have no effect. Not by xt_time's dates.
    void end_lease();
    // To be told when they are gone by other means.
    void forget();
    [[nodiscard]] bool are_there() const { return static_cast<bool>(text_); }
    [[nodiscard]] const StandingOptions& options() const { return options_; }

    // Of all rules since the start, whatever has replaced them: never less than before. Read again when a
    // second has passed.
    RuleCounts counts();

private:
    explicit StandingRules(StandingOptions options);
    [[nodiscard]] std::string list_of(const Tool& tool) const;
    [[nodiscard]] std::string lease_of(const Tool& tool) const;
    Result<void> grant();
    Result<void> put(const Tool& tool, const Text& text, const std::string& what, Duration lock_wait);
    void roll_back(std::size_t families, bool first);
    [[nodiscard]] bool is_changed(const Tool& tool);
    [[nodiscard]] bool has_to_look();
    Result<void> put_all();
    void renew();
    void note_counts(const Tool& tool, std::string_view saved);
    void count_anew(const Tool& tool);

    StandingOptions options_;
    Text text_; // empty: they are not there
    std::string what_;
    std::set<bool> leased_;                    // of IPv6 or not, what has a lease
    std::map<bool, rules::Presence> expected_; // of IPv6 or not
    std::map<bool, RuleCounts> latest_;        // by the rules that are there
    RuleCounts before_;                        // by those that were
    std::optional<Time> granted_at_;           // of what is there
    Time counted_at_;
    Time next_look_;
    Time next_try_; // to put back what could not be put back
    Source renewal_;
    bool renewed_ = true;
    bool changed_by_others_ = false; // seen in this renewal
    SignOfLife sign_of_life_;        // on a busy machine the programs of one change may outlast a lease
};

} // namespace syngate
