// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/iptables_steering.hpp"

#include "base/grace_period.hpp"
#include "iptables/loopback_queue.hpp"
#include "iptables/own_rules.hpp"
#include "iptables/redirected.hpp"
#include "iptables/rules_redirect.hpp"
#include "iptables/standing_rules.hpp"
#include "iptables/standing_tools.hpp"
#include "iptables/unanswered.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

using rules::Extension;

// A look costs a list of all connections.
constexpr Duration first_look = std::chrono::seconds(1);
constexpr Duration last_look = std::chrono::seconds(30);

std::string count_key(bool ipv6, std::uint16_t port) {
    return fmt::format("{} {}", ipv6 ? 6 : 4, port);
}

class RedirectSteering final : public Steering {
public:
    RedirectSteering(Loop& loop, const IptablesSteeringOptions& options) : loop_(loop), options_(options) {}
    ~RedirectSteering() override {
        release();
        if (!retiring_)
            return;
        // The last occasion, for which a busy lock is waited for longer.
        if (const auto left = retire(usual_lock_wait); !left)
            spdlog::error("{}; what was flipped leads nowhere any more, `syngate cleanup` removes its rules",
                          left.error().message);
        else if (*left > 0)
            spdlog::warn("connections that were flipped go on; the rules in the table nat that they need "
                         "stay until `syngate cleanup` finds none");
    }

    Result<void> start() {
        auto by = choose_standing_tools(needs(), options_.owner_id);
        if (!by)
            return std::unexpected(by.error());
        auto made = StandingRules::make(
            loop_, {.tools = std::move(by->tools),
                    .owner = options_.owner_id,
                    .table = rules::nat,
                    .hooks = {"PREROUTING", "OUTPUT"},
                    .parts = rules::redirect_parts,
                    .purpose = "n",
                    .lease_by = by->lease_by,
                    .lease = options_.lease,
                    .counts_in =
                        [owner = options_.owner_id](std::string_view saved, bool ipv6) {
                            RuleCounts counts;
                            for (const auto& each : rules::redirects_in(saved, owner, ipv6))
                                counts[count_key(ipv6, each.port)] += each.connections;
                            return counts;
                        },
                    .gate_is_closed = options_.gate_is_closed,
                    .take_away = [owner = options_.owner_id](const Tool& tool) -> Result<void> {
                        if (const auto r = retire_redirects(tool, owner, loop_lock_wait); !r)
                            return std::unexpected(r.error());
                        return {};
                    }});
        if (!made)
            return std::unexpected(made.error());
        rules_ = std::move(*made);
        return {};
    }

    Result<void> steer(const std::vector<SteerRule>& wanted) override {
        const auto redirects = port_redirects(wanted);
        if (!redirects)
            return std::unexpected(redirects.error());
        if (rules_ && rules_->are_there() && !retiring_ && leads_alike(active_, *redirects)) {
            active_ = *redirects;
            return {};
        }
        if (!rules_)
            if (auto r = start(); !r)
                return r;
        std::vector<rules::Redirect> all;
        for (const PortRedirect& each : *redirects)
            all.push_back({each.at, each.to});
        auto former = with_former(active_, former_);
        std::erase_if(former, [&](const auto& each) { return std::ranges::find(all, each) != all.end(); });
        // Over what is retiring, if anything is: there is no moment without a rule that needs conntrack.
        if (auto r = put(all, former); !r)
            return r;
        new_connections_go(active_, *redirects);
        active_ = *redirects;
        former_ = std::move(former);
        retiring_ = false;
        ++numbered_;
        look_after(first_look);
        return {};
    }

    void release() override {
        if (!rules_ || !rules_->are_there())
            return;
        (void)rules_->counts();
        rules_->end_lease(); // also when the lock is busy and the rules stay
        rules_->forget();
        former_ = with_former(active_, former_);
        retiring_ = true;
        if (!options_.gate_is_closed()) // with what is there it might take the queue of held SYNs
            retire_now();
        new_connections_go(active_, {});
        active_.clear();
        look_after(first_look);
    }

    [[nodiscard]] SteeringStatus status() const override {
        SteeringStatus s;
        s.mode = "iptables";
        s.generation = active_.empty() ? 0 : numbered_;
        const RuleCounts counts = rules_ ? rules_->counts() : RuleCounts{};
        for (const PortRedirect& each : active_) {
            const auto found = counts.find(count_key(each.at.ipv6, each.at.port));
            const std::uint64_t connections = found == counts.end() || each.to == 0 ? 0 : found->second;
            s.rules.push_back({to_string(each.at), each.at.port, each.sockets, each.sockets, connections, 0});
        }
        std::uint64_t steered = 0;
        for (const auto& [key, connections] : counts)
            steered += connections;
        s.verdicts = {{"steered", steered}};
        return s;
    }

private:
    [[nodiscard]] StandingNeeds needs() const {
        return {
            .variant = options_.variant,
            .needed = {Extension::dnat, Extension::addrtype},
            .by_ipv4_only = "new connections are flipped by IPv4 only",
            .impossible =
                [](const char* program, const std::string& lacking) {
                    return fmt::format(
                        "new connections cannot be flipped by {}, {}; --policy hold or drop does without",
                        program, lacking);
                },
        };
    }

    // Other sockets of a port are no other port.
    static bool leads_alike(const std::vector<PortRedirect>& one, const std::vector<PortRedirect>& other) {
        return std::ranges::equal(one, other, [](const PortRedirect& a, const PortRedirect& b) {
            return a.at == b.at && a.to == b.to;
        });
    }

    static std::vector<rules::Redirect> with_former(const std::vector<PortRedirect>& ended,
                                                    std::vector<rules::Redirect> former) {
        for (const PortRedirect& each : ended)
            if (const rules::Redirect one{each.at, each.to};
                each.to != 0 && std::ranges::find(former, one) == former.end())
                former.push_back(one);
        return former;
    }

    // Otherwise than before. When this returns, nothing that the former rules have led is on its way to a
    // listener, nor will be: whoever was led there is seen by a drain.
    static void new_connections_go(const std::vector<PortRedirect>& before,
                                   const std::vector<PortRedirect>& now) {
        const Time began = Clock::now();
        // Not by running on every CPU: netfilter has what comes back from a queue go through the rules with
        // softirqs on.
        wait_for_grace_period();
        const Time received = Clock::now();
        wait_for_packets_behind_loopback();
        const Time looped = Clock::now();
        LedTo led;
        for (const auto* some : {&before, &now})
            for (const PortRedirect& each : *some)
                led[{each.at.ipv6, each.at.port}] = {};
        for (const PortRedirect& each : now)
            led[{each.at.ipv6, each.at.port}].insert(each.to == 0 ? each.at.port : each.to);
        for (auto& [port, to] : led)
            if (to.empty())
                to.insert(port.second);
        const auto forgotten = forget_unanswered(led);
        if (!forgotten)
            spdlog::warn("{}: a client whose SYN was dropped comes to where its first one was led",
                         forgotten.error().message);
        spdlog::debug(
            "new connections are led anew, {} of them without an answer so far; waited {} for packets "
            "that are received, {} for those behind lo, {} for conntrack",
            forgotten.value_or(0), format_duration(received - began), format_duration(looped - received),
            format_duration(Clock::now() - looped));
    }

    Result<void> put(const std::vector<rules::Redirect>& all, const std::vector<rules::Redirect>& former) {
        return rules_->apply(
            [owner = options_.owner_id, all, former](const Tool& tool, const rules::Made& made,
                                                     const std::string& lease, bool with_jumps) {
                return rules::redirected({.owner = owner, .ipv6 = tool.ipv6, .made = made, .former = former},
                                         all, lease, with_jumps);
            },
            "cannot flip");
    }

    // Less and less often, as connections that have lived for long live on.
    void look_after(Duration delay) {
        look_.reset();
        if (former_.empty())
            return;
        auto look = loop_.after(delay, [this, delay] {
            if (options_.gate_is_closed())
                return look_after(delay);
            retiring_ ? retire_now() : drop_former();
            look_after(std::min(2 * delay, last_look));
        });
        if (look)
            look_ = std::move(*look);
        else
            spdlog::warn("{}", look.error().message);
    }

    // Nothing leads to the rules from now on; they go with the last connection that they led.
    void retire_now() {
        const auto left = retire(loop_lock_wait);
        if (!left)
            spdlog::warn("{}; tried again soon", left.error().message);
        retiring_ = !left || *left > 0;
        if (!retiring_)
            former_.clear();
    }

    // How many connections still need them.
    Result<std::size_t> retire(Duration lock_wait) {
        Result<std::size_t> connections = 0;
        for (const Tool& tool : rules_->options().tools) {
            const auto left = retire_redirects(tool, options_.owner_id, lock_wait);
            if (!left)
                connections = left;
            else if (connections)
                *connections += *left;
        }
        return connections;
    }

    // Those whose last connection has ended.
    void drop_former() {
        std::vector<rules::Redirected> asked;
        for (const rules::Redirect& each : former_)
            asked.push_back({.ipv6 = each.at.ipv6, .port = each.at.port, .to = each.to});
        const auto counts = count_redirected(asked);
        std::vector<rules::Redirect> left, all;
        for (std::size_t i = 0; i < former_.size(); ++i)
            if (counts[i] > 0)
                left.push_back(former_[i]);
        if (left == former_)
            return;
        for (const PortRedirect& each : active_)
            all.push_back({each.at, each.to});
        if (const auto r = put(all, left); !r)
            spdlog::warn("{}; tried again soon", r.error().message);
        else
            former_ = std::move(left);
    }

    Loop& loop_;
    IptablesSteeringOptions options_;
    std::unique_ptr<StandingRules> rules_;
    std::vector<PortRedirect> active_;
    // Ended while connections that they led went on, when somebody looked last.
    std::vector<rules::Redirect> former_;
    std::uint32_t numbered_ = 0;
    bool retiring_ = false; // nothing leads to what is there
    Source look_;
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
