// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/iptables_divert.hpp"

#include "iptables/own_rules.hpp"
#include "iptables/rules_transparent.hpp"
#include "iptables/standing_rules.hpp"
#include "iptables/standing_tools.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

using rules::Extension;

// As the steerer's: no event tells of a new listener.
constexpr auto look_every = std::chrono::milliseconds(200);

class Divert final : public IptablesDivert {
public:
    Divert(const Gate& gate, Sockets& sockets, const IptablesDivertOptions& options)
        : gate_(gate), sockets_(sockets), options_(options) {}
    ~Divert() override {
        if (!rules_)
            return;
        for (const Tool& tool : rules_->options().tools)
            if (const auto r = remove_parts(tool, rules::mangle, options_.owner_id, rules::transparent_parts);
                !r)
                spdlog::warn("{}; `syngate cleanup` removes them", r.error().message);
    }

    Result<void> start(Loop& loop) {
        auto by = choose_standing_tools(needs(), options_.owner_id);
        if (!by)
            return std::unexpected(by.error());
        if (!options_.ipv6)
            std::erase_if(by->tools, [](const Tool& tool) { return tool.ipv6; });
        addrtype_ = by->useful.contains(Extension::addrtype);
        const std::uint64_t owner = options_.owner_id;
        auto made = StandingRules::make(
            loop, {.tools = std::move(by->tools),
                   .owner = owner,
                   .table = rules::mangle,
                   .hooks = {"PREROUTING"},
                   .parts = rules::transparent_parts,
                   .purpose = "l",
                   .lease_by = by->lease_by,
                   .lease = options_.lease,
                   .counts_in = [owner](std::string_view saved, bool) { return counts_in(saved, owner); },
                   .gate_is_closed = [this] { return gate_.is_closed(); },
                   .take_away = [owner](const Tool& tool) -> Result<void> {
                       const auto removed =
                           remove_parts(tool, rules::mangle, owner, rules::transparent_parts, loop_lock_wait);
                       return removed ? Result<void>{} : std::unexpected(removed.error());
                   }});
        if (!made)
            return std::unexpected(made.error());
        rules_ = std::move(*made);
        live_ = find_live();
        if (auto r = apply(); !r)
            return r;
        if (options_.divert.intercepts.empty())
            return {};
        auto look = loop.every(look_every, [this] { follow(); });
        if (!look)
            return std::unexpected(look.error());
        look_ = std::move(*look);
        return {};
    }

    void follow() override {
        if (options_.divert.intercepts.empty() || gate_.is_closed())
            return;
        Live now = find_live();
        if (now == live_)
            return;
        const Live former = std::exchange(live_, std::move(now));
        if (const auto r = apply(); !r) {
            live_ = former;
            spdlog::warn("{}; tried again soon", r.error().message);
        }
    }

    [[nodiscard]] std::vector<std::pair<std::string, std::uint64_t>> verdicts() const override {
        RuleCounts counts = rules_->counts();
        std::vector<std::pair<std::string, std::uint64_t>> all;
        for (const char* reason : {"diverted", "diverted_error", "intercepted"})
            all.emplace_back(reason, counts[reason]);
        return all;
    }

private:
    // The ports of rules on which somebody listens, of IPv4 and of IPv6.
    using Live = std::array<PortSet, 2>;

    [[nodiscard]] StandingNeeds needs() const {
        StandingNeeds needs{
            .variant = options_.variant,
            .needed = {Extension::socket, Extension::mark},
            .useful = {Extension::addrtype},
            .leased = !options_.divert.intercepts.empty(),
            .by_ipv4_only = "transparent connections by IPv4 only",
            .impossible =
                [](const char* program, const std::string& lacking) {
                    return fmt::format("transparent proxying by {} is not possible, {}", program, lacking);
                },
        };
        if (needs.leased)
            needs.needed.insert({Extension::tproxy, Extension::addrtype});
        return needs;
    }

    [[nodiscard]] Live find_live() const {
        Live live;
        if (options_.divert.intercepts.empty())
            return live;
        const auto listeners = sockets_.listeners();
        if (!listeners) {
            spdlog::debug("{}", listeners.error().message);
            return live_;
        }
        for (const bool ipv6 : {false, true}) {
            const PortSet listened = rules::intercepted_to(*listeners, ipv6);
            for (const Intercept& rule : options_.divert.intercepts)
                if (listened.contains(rule.listen_port))
                    live[ipv6 ? 1 : 0].insert(rule.listen_port);
        }
        return live;
    }

    Result<void> apply() {
        return rules_->apply(
            [how = options_.divert, owner = options_.owner_id, addrtype = addrtype_, live = live_](
                const Tool& tool, const rules::Made& made, const std::string& lease, bool with_jumps) {
                return rules::transparent({.owner = owner,
                                           .ipv6 = tool.ipv6,
                                           .mark = how.mark,
                                           .mask = how.mask,
                                           .addrtype = addrtype,
                                           .made = made},
                                          how.intercepts, live[tool.ipv6 ? 1 : 0], lease, with_jumps);
            },
            "cannot put up the rules of transparent proxying");
    }

    static RuleCounts counts_in(std::string_view saved, std::uint64_t owner) {
        const auto counts = rules::transparent_counts(saved, owner);
        return {{"diverted", counts.diverted},
                {"diverted_error", counts.diverted_error},
                {"intercepted", counts.intercepted}};
    }

    const Gate& gate_;
    Sockets& sockets_;
    IptablesDivertOptions options_;
    bool addrtype_ = true;
    Live live_;
    std::unique_ptr<StandingRules> rules_;
    Source look_;
};

} // namespace

Result<std::unique_ptr<IptablesDivert>> IptablesDivert::put_up(Loop& loop, const Gate& gate, Sockets& sockets,
                                                               const IptablesDivertOptions& options) {
    auto divert = std::make_unique<Divert>(gate, sockets, options);
    if (const auto r = divert->start(loop); !r)
        return std::unexpected(r.error());
    return divert;
}

} // namespace syngate
