// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/transparent.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <net/if.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

using Wish = TransparentOptions::Wish;

constexpr auto look_for_lender_every = std::chrono::seconds(1);

// Why transparent proxying is not to be; empty: it is to be.
std::string not_wanted(const TransparentOptions& options, bool server_needs_it) {
    if (options.wish == Wish::off)
        return "--transparent off";
    if (options.wish == Wish::automatic && options.intercepts.empty() && !server_needs_it)
        return "the server's configuration does not ask for it (--transparent on will)";
    return {};
}

// Agents that stop, and whose packets are routed by what they have given up.
Result<std::vector<std::uint64_t>> find_lenders() {
    const auto peers = find_peers();
    if (!peers)
        return std::unexpected(peers.error());
    std::vector<std::uint64_t> ids;
    for (const Peer& peer : *peers)
        if (peer.lends)
            ids.push_back(peer.id);
    return ids;
}

bool somebody_lends() {
    const auto lenders = find_lenders();
    return !lenders || !lenders->empty();
}

// Those on which packets are marked; by rules, on all but lo.
std::vector<std::string> names_of(const GateStatus& gate) {
    std::vector<std::string> names;
    for (const GateInterface& each : gate.interfaces)
        if (!each.divert.empty())
            names.push_back(each.name);
    if (gate.mode == "bpf")
        return names;
    struct if_nameindex* all = if_nameindex();
    for (auto* each = all; each && each->if_index != 0; ++each)
        if (std::string_view(each->if_name) != "lo")
            names.emplace_back(each->if_name);
    if_freenameindex(all);
    return names;
}

} // namespace

Result<void> Transparent::claim_and_set_up() {
    if (const auto r = registry_->claim_transparent(true); !r)
        return r;
    // With the claim in hand, whatever is there is a dead agent's, or one's that stops and would share it.
    auto left = find_own_routing();
    if (!left)
        return std::unexpected(left.error());
    const OwnRouting taken_over = take_fitting(*left, options_.route);
    auto lenders = find_lenders();
    if (!lenders)
        return std::unexpected(lenders.error());
    if (!left->empty() && lenders->empty()) {
        const auto removed = remove_own_routing(*left);
        if (!removed)
            return std::unexpected(removed.error());
        for (const std::string& what : *removed)
            spdlog::info("removed {} of a dead agent", what);
    }
    auto routing = PolicyRouting::set_up(options_.route, taken_over);
    if (!routing)
        return std::unexpected(routing.error());
    routing_ = std::move(*routing);
    if (!lenders->empty()) {
        lenders_ = std::move(*lenders);
        lenders_own_ = std::move(*left);
        until_lenders_end_.enable(true);
    }
    return {};
}

// They left everything to us: they cannot tell what of it we need.
void Transparent::clear_up_after_lenders() {
    until_lenders_end_.enable(false);
    lenders_.clear();
    if (const auto removed = remove_own_routing(std::exchange(lenders_own_, {})); !removed)
        spdlog::error("{}", removed.error().message);
}

Result<std::unique_ptr<Transparent>> Transparent::make(Loop& loop, const TransparentOptions& options,
                                                       bool server_needs_it, Registry& registry,
                                                       const WaitAgain& again) {
    auto transparent = std::make_unique<Transparent>();
    transparent->options_ = options;
    transparent->needed_ = server_needs_it;
    transparent->off_because_ = not_wanted(options, server_needs_it);
    if (!transparent->off_because_.empty()) {
        if (const auto swept = sweep_routing(registry); !swept)
            spdlog::warn("{}", swept.error().message);
        else
            for (const std::string& what : *swept)
                spdlog::info("removed {} of a dead agent", what);
        return transparent;
    }
    transparent->registry_ = &registry;
    auto timer = loop.every(look_for_lender_every, [each = transparent.get()] {
        if (std::ranges::none_of(each->lenders_, is_alive))
            each->clear_up_after_lenders();
    });
    if (!timer)
        return std::unexpected(timer.error());
    transparent->until_lenders_end_ = std::move(*timer);
    transparent->until_lenders_end_.enable(false);
    const bool asked_for = transparent->is_asked_for();
    auto routing = transparent->claim_and_set_up();
    while (!routing && routing.error().code == EADDRINUSE && again(asked_for))
        routing = transparent->claim_and_set_up();
    if (routing) {
        if (!transparent->routing_->no_ipv6_because().empty())
            spdlog::warn("transparent connections by IPv4 only: {}",
                         transparent->routing_->no_ipv6_because());
        return transparent;
    }
    (void)registry.claim_transparent(false);
    if (asked_for)
        return std::unexpected(routing.error());
    transparent->off_because_ = routing.error().message;
    spdlog::warn("the server's configuration asks for transparent connections, but: {}",
                 transparent->off_because_);
    return transparent;
}

void Transparent::lend() {
    if (!routing_ || lent_)
        return;
    registry_->lend_transparent();
    lent_ = true;
    until_lenders_end_.enable(false); // what is there may be a successor's by now
}

Transparent::~Transparent() {
    end();
}

// Of agents that share, the one that goes last removes everything, and does so while the claim is its own.
// Each says first that it needs nothing any more, and then looks for the others.
void Transparent::end() {
    if (!routing_)
        return;
    until_lenders_end_.enable(false);
    if (!lent_ && lenders_.empty()) {
        routing_.reset();
        return;
    }
    if (!lent_)
        registry_->lend_transparent();
    for (;;) {
        if (!registry_->claim_transparent(true))
            break; // who has it removes what is left
        if (!somebody_lends()) {
            clear_up_as_the_last();
            break;
        }
        // From here on the one that lends would find it free; it may have gone in between.
        (void)registry_->claim_transparent(false);
        if (somebody_lends())
            break;
    }
    if (routing_)
        routing_->leave();
    routing_.reset();
}

void Transparent::clear_up_as_the_last() {
    routing_.reset();
    const auto left = find_own_routing();
    const auto removed = left ? remove_own_routing(*left) : std::unexpected(left.error());
    if (!removed)
        spdlog::error("{}", removed.error().message);
}

// Not only by the server's configuration.
bool Transparent::is_asked_for() const {
    return options_.wish == Wish::on || !options_.intercepts.empty();
}

std::optional<DivertOptions> Transparent::divert() const {
    if (!routing_)
        return {};
    return DivertOptions{.mark = options_.route.mark,
                         .mask = options_.route.mask,
                         .intercepts = options_.intercepts,
                         .needed = is_asked_for()};
}

Result<void> Transparent::give_up(Registry& registry, const Error& why) {
    off_because_ = why.message;
    end();
    (void)registry.claim_transparent(false);
    if (is_asked_for())
        return failure(why.exit, off_because_ + "; --transparent off does without", why.code);
    spdlog::warn("the server's configuration asks for transparent connections, but: {}", off_because_);
    return {};
}

void Transparent::look_again(bool server_needs_it) {
    const bool began = server_needs_it && !needed_;
    needed_ = server_needs_it;
    if (!began || routing_ || options_.wish == Wish::off)
        return;
    off_because_ =
        "the server's configuration did not ask for it when syngate started; restart syngate, or start "
        "it with --transparent on";
    spdlog::warn("the server's configuration asks for transparent connections now, which is off: {}",
                 off_because_);
}

void Transparent::report_obstacles(const GateStatus& gate) const {
    if (!routing_)
        return;
    for (const Obstacle& obstacle : find_obstacles(names_of(gate)))
        spdlog::warn("{}", obstacle.text);
}

nlohmann::json Transparent::status(const GateStatus& gate) const {
    if (!routing_)
        return {{"on", false}, {"because", off_because_}};
    nlohmann::json verdicts = nlohmann::json::object();
    for (const auto& [reason, packets] : gate.divert_verdicts)
        verdicts[reason] = packets;
    nlohmann::json intercepts = nlohmann::json::array();
    for (const Intercept& rule : options_.intercepts)
        intercepts.push_back(rule.text);
    // As they are now: a sysctl may have been set since.
    nlohmann::json obstacles = nlohmann::json::array();
    for (const Obstacle& obstacle : find_obstacles(names_of(gate)))
        obstacles.push_back({{"what", obstacle.what}, {"text", obstacle.text}});
    return {{"on", true},
            {"mark", fmt::format("{:#x}/{:#x}", options_.route.mark, options_.route.mask)},
            {"table", options_.route.table},
            {"rule_priority", options_.route.priority},
            {"no_ipv6_because", routing_->no_ipv6_because()},
            {"intercepts", intercepts},
            {"verdicts", verdicts},
            {"obstacles", obstacles}};
}

Result<std::vector<std::string>> sweep_routing(Registry& registry) {
    const auto left = find_own_routing();
    if (!left)
        return std::unexpected(left.error());
    if (left->empty())
        return std::vector<std::string>{};
    if (!registry.claim_transparent(true))
        return std::vector<std::string>{}; // its owner lives, or may
    Result<std::vector<std::string>> removed;
    if (!somebody_lends())
        removed = remove_own_routing(*left);
    (void)registry.claim_transparent(false);
    return removed;
}

} // namespace syngate
