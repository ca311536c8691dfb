// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/standing_rules.hpp"

#include "base/fd.hpp"
#include "iptables/own_rules.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr int renewals_in_a_lease = 10;

std::int64_t seconds_of(Duration lease) {
    return std::max<std::int64_t>(1, std::chrono::ceil<std::chrono::seconds>(lease).count());
}

} // namespace

Result<std::unique_ptr<StandingRules>> StandingRules::make(Loop& loop, StandingOptions options) {
    std::unique_ptr<StandingRules> rules(new StandingRules(std::move(options)));
    auto renewal =
        loop.every(rules->options_.lease / renewals_in_a_lease, [self = rules.get()] { self->renew(); });
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

Result<void> StandingRules::grant() const {
    if (options_.lease_by != rules::LeaseBy::recent)
        return {};
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
                                bool with_jumps) const {
    return tool.apply(what, text(tool, lease_of(tool), with_jumps));
}

Result<void> StandingRules::apply(Text text, const std::string& what) {
    const bool first = !are_there();
    Result<void> r;
    std::size_t done = 0;
    while (r && done < options_.tools.size())
        if (r = put(options_.tools[done], text, what, first); r)
            ++done;
    if (!r) {
        for (std::size_t i = 0; i < done; ++i) {
            const Tool& tool = options_.tools[i];
            Result<void> back;
            if (!first)
                back = put(tool, text_, what, false);
            else if (const auto removed = remove_parts(tool, options_.table, options_.owner, options_.parts);
                     !removed)
                back = std::unexpected(removed.error());
            if (!back)
                spdlog::warn("{}", back.error().message);
        }
        if (const auto granted = first ? Result<void>{} : grant(); !granted)
            spdlog::warn("{}", granted.error().message);
        return r;
    }
    text_ = std::move(text);
    what_ = what;
    leased_.clear();
    for (const Tool& tool : options_.tools)
        if (const std::string lease = lease_of(tool); text_(tool, lease, first).find(lease) != lease.npos)
            leased_.insert(tool.ipv6);
    renewal_.enable(true);
    const auto granted = grant();
    if (granted || !first) { // what replaces others is in force by their lease; the next renewal tries again
        if (!granted)
            spdlog::warn("{}", granted.error().message);
        return {};
    }
    for (const Tool& tool : options_.tools)
        if (const auto removed = remove_parts(tool, options_.table, options_.owner, options_.parts); !removed)
            spdlog::warn("{}", removed.error().message);
    forget();
    return granted;
}

void StandingRules::forget() {
    text_ = {};
    renewal_.enable(false);
}

// Whatever is left of them goes first: jumps would be there twice.
Result<void> StandingRules::put_back() {
    Result<void> result;
    for (const Tool& tool : options_.tools) {
        const auto removed =
            remove_parts(tool, options_.table, options_.owner, options_.parts, usual_lock_wait, true);
        const Result<void> r = removed ? put(tool, text_, what_, true) : std::unexpected(removed.error());
        if (!r)
            result = r;
    }
    return result ? grant() : result;
}

void StandingRules::renew() {
    Result<void> r = grant();
    if (r && options_.lease_by == rules::LeaseBy::time)
        for (const Tool& tool : options_.tools)
            if (r)
                r = put(tool, text_, what_, false);
    if (!r) {
        spdlog::warn("rules of ours in the table {} were taken away, and are put back: {}", options_.table,
                     r.error().message);
        r = put_back();
    }
    if (!r && renewed_)
        spdlog::error("{}", r.error().message);
    renewed_ = r.has_value();
}

} // namespace syngate
