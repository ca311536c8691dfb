// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/standing_rules.hpp"

#include "base/fd.hpp"
#include "iptables/own_rules.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr int gate_leases = 3; // a renewal may be missed, and the next one be late
constexpr Duration counts_last = std::chrono::seconds(1);
constexpr Duration try_again_after = std::chrono::seconds(5);
constexpr int look_at_most = 50; // of the time that passes, one part, however many rules others have

std::int64_t seconds_of(Duration lease) {
    return std::max<std::int64_t>(1, std::chrono::ceil<std::chrono::seconds>(gate_leases * lease).count());
}

} // namespace

StandingRules::StandingRules(StandingOptions options)
    : options_(std::move(options)), sign_of_life_([this] {
          if (are_there())
              (void)grant();
      }) {}

Result<std::unique_ptr<StandingRules>> StandingRules::make(Loop& loop, StandingOptions options) {
    std::unique_ptr<StandingRules> rules(new StandingRules(std::move(options)));
    auto renewal = loop.every(rules->options_.lease, [self = rules.get()] { self->renew(); });
    if (!renewal)
        return std::unexpected(renewal.error());
    rules->renewal_ = std::move(*renewal);
    rules->renewal_.enable(false);
    return rules;
}

std::string StandingRules::list_of(const Tool& tool) const {
    return rules::list_name(options_.owner, tool.ipv6, options_.purpose);
}

std::string StandingRules::lease_of(const Tool& tool) const {
    const std::int64_t seconds = seconds_of(options_.lease);
    if (options_.lease_by == rules::LeaseBy::recent)
        return rules::recent_match(tool.ipv6, list_of(tool), static_cast<unsigned>(seconds));
    // The wall clock may be set; by so much, a lease that is renewed does not end.
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    return rules::time_match(now - seconds, now + seconds + 1);
}

Result<void> StandingRules::grant() {
    if (options_.lease_by != rules::LeaseBy::recent)
        return {};
    const Time now = Clock::now();
    const Duration lease = std::chrono::seconds(seconds_of(options_.lease));
    if (granted_at_ && !leased_.empty() && now > *granted_at_ + lease)
        spdlog::warn(
            "rules of ours in the table {} had no effect for {}: this agent was stopped, or kept from "
            "running, for longer than three times --lease",
            options_.table, format_duration(now - *granted_at_ - lease));
    if (are_there())
        granted_at_ = now;
    Result<void> result;
    for (const Tool& tool : options_.tools) {
        if (!leased_.contains(tool.ipv6))
            continue;
        const std::string path = rules::list_path(list_of(tool));
        const std::string line = fmt::format("+{}\n", rules::list_entry(tool.ipv6));
        const Fd list(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
        if (!list || ::write(list.get(), line.data(), line.size()) < 0)
            result = system_failure(fmt::format("cannot write to {}", path), errno);
    }
    return result;
}

Result<void> StandingRules::put(const Tool& tool, const Text& text, const std::string& what,
                                Duration lock_wait) {
    const auto saved = tool.saved(options_.table);
    if (!saved)
        return std::unexpected(saved.error());
    note_counts(tool, *saved);
    const auto made = note_makings(tool, options_.owner, options_.table, options_.hooks, *saved);
    const std::string lease = lease_of(tool);
    const std::string whole = text(tool, made, lease, true);
    const auto expected = rules::presence_after(whole);
    const auto found = rules::presence_in(*saved, options_.table, options_.owner, options_.parts);
    changed_by_others_ |= are_there() && found != expected_[tool.ipv6];
    // Jumps that are there stay where they are among others' rules.
    const auto r = tool.apply(
        what,
        found.jumps == expected.jumps
            ? text(tool, made, lease, false)
            : rules::without_former_jumps(whole, *saved, options_.table, options_.owner, options_.parts),
        lock_wait);
    if (!r)
        return r;
    count_anew(tool);
    expected_[tool.ipv6] = expected;
    if (whole.find(lease) != whole.npos)
        leased_.insert(tool.ipv6);
    else
        leased_.erase(tool.ipv6);
    return {};
}

Result<void> StandingRules::apply(Text text, const std::string& what) {
    const bool first = !are_there();
    std::size_t done = 0;
    Result<void> r;
    for (; r && done < options_.tools.size(); done += r ? 1 : 0)
        r = put(options_.tools[done], text, what, first ? usual_lock_wait : loop_lock_wait);
    if (!r) {
        roll_back(done, first);
        return r;
    }
    const auto granted = grant();
    if (!granted && first) {
        roll_back(done, first);
        return granted;
    }
    if (!granted) // what replaces others is in force by their lease; the next renewal tries again
        spdlog::warn("{}", granted.error().message);
    text_ = std::move(text);
    what_ = what;
    renewal_.enable(true);
    return {};
}

void StandingRules::roll_back(std::size_t families, bool first) {
    for (std::size_t i = 0; i < families; ++i) {
        const Tool& tool = options_.tools[i];
        if (const auto r = first ? options_.take_away(tool) : put(tool, text_, what_, loop_lock_wait); !r)
            spdlog::warn("{}", r.error().message);
    }
    if (first)
        forget();
    else if (const auto granted = grant(); !granted)
        spdlog::warn("{}", granted.error().message);
}

void StandingRules::end_lease() {
    if (options_.lease_by != rules::LeaseBy::recent)
        return;
    for (const Tool& tool : options_.tools) {
        if (!leased_.contains(tool.ipv6))
            continue;
        const std::string path = rules::list_path(list_of(tool));
        const std::string line = fmt::format("-{}\n", rules::list_entry(tool.ipv6));
        const Fd list(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
        if (!list || ::write(list.get(), line.data(), line.size()) < 0)
            spdlog::warn(
                "cannot write to {}: {}; rules of ours in the table {} may be in force until their lease "
                "ends",
                path, std::strerror(errno), options_.table);
    }
}

void StandingRules::forget() {
    text_ = {};
    granted_at_.reset();
    renewal_.enable(false);
}

// A firewall that is loaded anew may leave the chains and take the jumps, or empty them all.
bool StandingRules::is_changed(const Tool& tool) {
    const auto saved = tool.saved(options_.table);
    if (!saved)
        return false;
    note_counts(tool, *saved);
    return rules::presence_in(*saved, options_.table, options_.owner, options_.parts) != expected_[tool.ipv6];
}

bool StandingRules::has_to_look() {
    const Time began = Clock::now();
    if (began < next_look_)
        return false;
    const bool changed =
        std::ranges::any_of(options_.tools, [&](const Tool& tool) { return is_changed(tool); });
    next_look_ = Clock::now() + look_at_most * (Clock::now() - began);
    return changed;
}

Result<void> StandingRules::put_all() {
    Result<void> result;
    for (const Tool& tool : options_.tools)
        if (auto r = put(tool, text_, what_, loop_lock_wait); !r)
            result = std::move(r);
    const auto granted = grant();
    return result ? granted : result;
}

void StandingRules::renew() {
    const auto granted = grant();
    const bool by_time = options_.lease_by == rules::LeaseBy::time && !leased_.empty();
    if (Clock::now() < next_try_ || (options_.gate_is_closed() && !by_time))
        return;
    changed_by_others_ = !granted || (!by_time && has_to_look());
    const auto r = changed_by_others_ || by_time ? put_all() : Result<void>{};
    if (changed_by_others_ && renewed_)
        spdlog::warn("rules of ours in the table {} were taken away or changed, and are put back{}",
                     options_.table, granted ? "" : ": " + granted.error().message);
    if (!r && renewed_)
        spdlog::error("{}; tried again every {}", r.error().message, format_duration(try_again_after));
    if (!r && !by_time) // by dates nothing else keeps them in force
        next_try_ = Clock::now() + try_again_after;
    renewed_ = r.has_value();
}

void StandingRules::note_counts(const Tool& tool, std::string_view saved) {
    RuleCounts now = options_.counts_in(saved, tool.ipv6);
    for (const auto& [key, former] : latest_[tool.ipv6])
        if (const auto found = now.find(key); found == now.end() || found->second < former)
            before_[key] += former; // by somebody who has zeroed or removed them
    latest_[tool.ipv6] = std::move(now);
}

void StandingRules::count_anew(const Tool& tool) {
    for (const auto& [key, former] : latest_[tool.ipv6])
        before_[key] += former;
    latest_[tool.ipv6].clear();
}

RuleCounts StandingRules::counts() {
    // While the gate is closed somebody waits for more than numbers.
    if (are_there() && !options_.gate_is_closed() && Clock::now() >= counted_at_ + counts_last) {
        for (const Tool& tool : options_.tools)
            if (const auto saved = tool.saved(options_.table); saved)
                note_counts(tool, *saved);
        counted_at_ = Clock::now();
    }
    RuleCounts sum = before_;
    for (const auto& [ipv6, counts] : latest_)
        for (const auto& [key, count] : counts)
            sum[key] += count;
    return sum;
}

} // namespace syngate
