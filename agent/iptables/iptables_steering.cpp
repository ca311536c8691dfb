// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/iptables_steering.hpp"

#include "base/grace_period.hpp"
#include "iptables/own_rules.hpp"
#include "iptables/rules_redirect.hpp"
#include "iptables/standing_rules.hpp"
#include "iptables/standing_tools.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

using rules::Extension;

constexpr auto retire_every = std::chrono::seconds(1);

class RedirectSteering final : public Steering {
public:
    RedirectSteering(Loop& loop, const IptablesSteeringOptions& options) : loop_(loop), options_(options) {}
    ~RedirectSteering() override {
        release();
        if (retiring_)
            spdlog::warn("connections that were flipped go on; the rules in the table nat that they need "
                         "stay until `syngate cleanup` finds none");
    }

    Result<void> start() {
        auto by = choose_standing_tools(needs(), options_.owner_id);
        if (!by)
            return std::unexpected(by.error());
        auto made = StandingRules::make(loop_, {.tools = std::move(by->tools),
                                                .owner = options_.owner_id,
                                                .table = rules::nat,
                                                .parts = rules::redirect_parts,
                                                .purpose = "n",
                                                .lease_by = by->lease_by,
                                                .lease = 10 * options_.lease});
        if (!made)
            return std::unexpected(made.error());
        auto retire = loop_.every(retire_every, [this] { retire_now(); });
        if (!retire)
            return std::unexpected(retire.error());
        retire_ = std::move(*retire);
        retire_.enable(false);
        rules_ = std::move(*made);
        return {};
    }

    Result<void> steer(const std::vector<SteerRule>& wanted) override {
        const auto redirects = port_redirects(wanted);
        if (!redirects)
            return std::unexpected(redirects.error());
        if (!rules_)
            if (auto r = start(); !r)
                return r;
        if (retiring_)
            if (const auto r = clear_away(); !r)
                return r;
        std::vector<rules::Redirect> all;
        for (const PortRedirect& each : *redirects)
            all.push_back({each.at, each.to});
        std::array<rules::Made, 2> made;
        for (const Tool& tool : rules_->options().tools)
            made[tool.ipv6 ? 1 : 0] =
                note_makings(tool, options_.owner_id, rules::nat, {"PREROUTING", "OUTPUT"});
        const auto counted = counts();
        auto r = rules_->apply(
            [owner = options_.owner_id, all, made](const Tool& tool, const std::string& lease,
                                                   bool with_jumps) {
                return rules::redirected({.owner = owner, .ipv6 = tool.ipv6, .made = made[tool.ipv6 ? 1 : 0]},
                                         all, lease, with_jumps);
            },
            "cannot flip");
        if (!r)
            return r;
        wait_for_packets_under_way();
        for (const auto& [key, connections] : counted)
            before_ += connections;
        active_ = *redirects;
        ++numbered_;
        return {};
    }

    void release() override {
        if (!rules_ || !rules_->are_there())
            return;
        for (const auto& [key, connections] : counts())
            before_ += connections;
        rules_->forget();
        active_.clear();
        retiring_ = true;
        retire_now();
    }

    [[nodiscard]] SteeringStatus status() const override {
        SteeringStatus s;
        s.mode = "iptables";
        s.generation = active_.empty() ? 0 : numbered_;
        const auto counted = active_.empty() ? Counts{} : counts();
        std::uint64_t steered = before_;
        for (const PortRedirect& each : active_) {
            const auto found = counted.find({each.at.ipv6, each.at.port});
            const std::uint64_t connections = found == counted.end() || each.to == 0 ? 0 : found->second;
            s.rules.push_back({to_string(each.at), each.at.port, each.sockets, each.sockets, connections, 0});
        }
        for (const auto& [key, connections] : counted)
            steered += connections;
        s.verdicts = {{"steered", steered}};
        return s;
    }

private:
    using Counts = std::map<std::pair<bool, std::uint16_t>, std::uint64_t>; // by family and port

    [[nodiscard]] StandingNeeds needs() const {
        return {
            .variant = options_.variant,
            .needed = {Extension::redirect, Extension::addrtype},
            .by_ipv4_only = "new connections are flipped by IPv4 only",
            .impossible =
                [](const char* program, const std::string& lacking) {
                    return fmt::format(
                        "new connections cannot be flipped by {}, {}; --policy hold or drop does without",
                        program, lacking);
                },
        };
    }

    [[nodiscard]] Counts counts() const {
        Counts sum;
        if (!rules_->are_there())
            return sum;
        for (const Tool& tool : rules_->options().tools)
            if (const auto saved = tool.saved(rules::nat); saved)
                for (const auto& each : rules::redirects_in(*saved, options_.owner_id, tool.ipv6))
                    sum[{each.ipv6, each.port}] += each.connections;
        return sum;
    }

    // Nothing leads to the rules from now on; they go with the last connection that they led.
    void retire_now() {
        std::size_t connections = 0;
        Result<void> r;
        for (const Tool& tool : rules_->options().tools) {
            const auto left = retire_redirects(tool, options_.owner_id);
            if (!left)
                r = std::unexpected(left.error());
            else
                connections += *left;
        }
        if (!r)
            spdlog::warn("{}; tried again soon", r.error().message);
        retiring_ = !r || connections > 0;
        retire_.enable(retiring_);
    }

    // What is retiring makes room: the new rules need conntrack as well.
    Result<void> clear_away() {
        retire_.enable(false);
        for (const Tool& tool : rules_->options().tools)
            if (const auto r = remove_parts(tool, rules::nat, options_.owner_id, rules::redirect_parts,
                                            usual_lock_wait, true);
                !r)
                return std::unexpected(r.error());
        retiring_ = false;
        return {};
    }

    Loop& loop_;
    IptablesSteeringOptions options_;
    std::unique_ptr<StandingRules> rules_;
    std::vector<PortRedirect> active_;
    std::uint32_t numbered_ = 0;
    std::uint64_t before_ = 0; // connections of rules that were replaced
    bool retiring_ = false;
    Source retire_;
};

} // namespace

Result<std::vector<PortRedirect>> port_redirects(const std::vector<SteerRule>& rules) {
    std::vector<PortRedirect> redirects;
    for (const SteerRule& rule : rules) {
        PortRedirect redirect{rule.at, 0, rule.to.size()};
        for (const Listener& listener : rule.to) {
            if (listener.port == rule.at.port)
                return failure(Exit::impossible,
                               fmt::format("iptables leads {} to another port, and cannot choose between the "
                                           "sockets of one port",
                                           to_string(rule.at)));
            if (redirect.to != 0 && redirect.to != listener.port)
                return failure(Exit::impossible,
                               fmt::format("iptables leads {} to one port, not to {} and {}",
                                           to_string(rule.at), redirect.to, listener.port));
            redirect.to = listener.port;
        }
        redirects.push_back(redirect);
    }
    return redirects;
}

Result<std::unique_ptr<Steering>> make_iptables_steering(Loop& loop, const IptablesSteeringOptions& options) {
    auto steering = std::make_unique<RedirectSteering>(loop, options);
    if (options.at_once)
        if (const auto r = steering->start(); !r)
            return std::unexpected(r.error());
    return steering;
}

} // namespace syngate
