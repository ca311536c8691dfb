// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/probe.hpp"
#include "cli/commands.hpp"
#include "probe/capabilities.hpp"
#include "probe/features.hpp"
#include "route/obstacles.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <net/if.h>

namespace syngate {
namespace {

struct Choice {
    std::string mode; // "bpf", "iptables", or empty when no gate is possible
    std::string hook; // of iptables: its variant
    std::string policy;
    std::string otherwise; // where that policy is not possible
    std::string why;
};

bool has(const Features& features, std::string_view name) {
    const Feature* found = find_feature(features, name);
    return found && found->available;
}

std::string how(const Features& features, std::string_view name) {
    const Feature* found = find_feature(features, name);
    return fmt::format("{}: {}", name, found ? found->how : "");
}

Choice choose_bpf(const Features& features, const Capabilities& capabilities) {
    if (const auto missing = capabilities.missing_for_bpf(); !missing.empty())
        return {"", "", "", "", fmt::format("missing: {}", fmt::join(missing, ", "))};
    for (const auto needed : {feature::bpf, feature::mmap_array, feature::lpm_trie, feature::sched_cls})
        if (!has(features, needed))
            return {"", "", "", "", how(features, needed)};
    const std::string hook = best_hook(features);
    if (hook.empty())
        return {"", "", "", "", "neither TCX nor clsact"};
    // What cannot overlap, and every full restart, is held or dropped whatever else is possible.
    const bool flip = has(features, feature::sk_lookup);
    const bool hold = has(features, feature::ringbuf) && has(features, feature::live_frames);
    const std::string otherwise = hold ? "hold" : "drop";
    std::string why =
        flip ? fmt::format("new connections can be steered; {} for a server that cannot overlap and "
                           "for a full restart",
                           otherwise)
             : fmt::format("no flip, new connections cannot be steered, {}",
                           how(features, feature::sk_lookup));
    if (!hold)
        why += "; SYNs cannot be replayed here, so hold acts as drop";
    return {"bpf", hook, flip ? "flip" : otherwise, otherwise, why};
}

Choice choose(const Features& features, const Capabilities& capabilities) {
    Choice bpf = choose_bpf(features, capabilities);
    if (!bpf.mode.empty())
        return bpf;
    const std::string why = "not BPF, " + bpf.why;
    if (!capabilities.net_admin)
        return {"", "", "", "", why};
    const std::string variant = best_variant(features);
    if (variant.empty())
        return {"", "", "", "", why + "; not iptables, " + how(features, feature::iptables_nft)};
    if (!has(features, feature::xt_recent) && !has(features, feature::xt_time))
        return {"", "", "", "",
                fmt::format("{}; not iptables, {}, {}", why, how(features, feature::xt_recent),
                            how(features, feature::xt_time))};
    const std::string policy = has(features, feature::nfqueue) ? "hold" : "drop";
    return {"iptables", variant, policy, policy, why};
}

// In the way of transparent proxying, on whatever interface it may be wanted.
std::vector<Obstacle> obstacles() {
    std::vector<std::string> interfaces;
    struct if_nameindex* all = if_nameindex();
    for (auto* each = all; each && each->if_index != 0; ++each)
        if (std::string_view(each->if_name) != "lo")
            interfaces.emplace_back(each->if_name);
    if_freenameindex(all);
    return find_obstacles(interfaces);
}

} // namespace

Result<int> command_probe(const Options& options) {
    const auto capabilities = effective_capabilities();
    if (!capabilities)
        return std::unexpected(capabilities.error());
    Features features = probe_features(options.gate.bpffs);
    std::ranges::move(probe_iptables(), std::back_inserter(features));
    const Choice choice = choose(features, *capabilities);
    const std::vector<Obstacle> in_the_way = obstacles();
    if (options.json) {
        nlohmann::json transparent = nlohmann::json::array();
        for (const Obstacle& obstacle : in_the_way)
            transparent.push_back({{"what", obstacle.what}, {"text", obstacle.text}});
        const nlohmann::json json = {{"ok", !choice.mode.empty()},
                                     {"mode", choice.mode},
                                     {"hook", choice.hook},
                                     {"policy", choice.policy},
                                     {"otherwise", choice.otherwise},
                                     {"why", choice.why},
                                     {"capabilities", capabilities->names()},
                                     {"features", features_to_json(features)},
                                     {"transparent_obstacles", transparent}};
        fmt::print("{}\n", json.dump());
    } else {
        for (const Feature& feature : features)
            fmt::print("{:15} {:3}  {}\n", feature.name, feature.available ? "yes" : "no", feature.how);
        fmt::print("{:15} {}\n", "capabilities", fmt::join(capabilities->names(), " "));
        if (choice.mode.empty())
            fmt::print("auto takes      nothing: {}\n", choice.why);
        else
            fmt::print("auto takes      mode {}, hook {}, policy {}: {}\n", choice.mode, choice.hook,
                       choice.policy, choice.why);
        for (const Obstacle& obstacle : in_the_way)
            fmt::print("transparent     {}\n", obstacle.text);
    }
    return static_cast<int>(choice.mode.empty() ? Exit::impossible : Exit::ok);
}

} // namespace syngate
