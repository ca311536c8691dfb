// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"
#include "probe/capabilities.hpp"
#include "probe/features.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace syngate {
namespace {

struct Choice {
    std::string mode; // "bpf", or empty when the gate is not possible
    std::string hook;
    std::string policy;
    std::string why;
};

Choice choose(const Features& features, const Capabilities& capabilities) {
    const auto available = [&](std::string_view name) {
        const Feature* found = find_feature(features, name);
        return found && found->available;
    };
    if (const auto missing = capabilities.missing_for_bpf(); !missing.empty())
        return {"", "", "", fmt::format("missing: {}", fmt::join(missing, ", "))};
    for (const auto needed : {feature::bpf, feature::mmap_array, feature::lpm_trie, feature::sched_cls})
        if (!available(needed))
            return {"", "", "", fmt::format("{}: {}", needed, find_feature(features, needed)->how)};
    const std::string hook = best_hook(features);
    if (hook.empty())
        return {"", "", "", "neither TCX nor clsact"};
    const bool hold = available(feature::ringbuf) && available(feature::live_frames);
    return {"bpf", hook, hold ? "hold" : "drop",
            hold ? "all that it needs is there" : "SYNs cannot be replayed here, so hold acts as drop"};
}

} // namespace

Result<int> command_probe(const Options& options) {
    const auto capabilities = effective_capabilities();
    if (!capabilities)
        return std::unexpected(capabilities.error());
    const Features features = probe_features(options.gate.bpffs);
    const Choice choice = choose(features, *capabilities);
    if (options.json) {
        const nlohmann::json json = {{"ok", !choice.mode.empty()},
                                     {"mode", choice.mode},
                                     {"hook", choice.hook},
                                     {"policy", choice.policy},
                                     {"why", choice.why},
                                     {"capabilities", capabilities->names()},
                                     {"features", features_to_json(features)}};
        fmt::print("{}\n", json.dump());
    } else {
        for (const Feature& feature : features)
            fmt::print("{:12} {:3}  {}\n", feature.name, feature.available ? "yes" : "no", feature.how);
        fmt::print("{:12} {}\n", "capabilities", fmt::join(capabilities->names(), " "));
        if (choice.mode.empty())
            fmt::print("auto takes   nothing: {}\n", choice.why);
        else
            fmt::print("auto takes   mode {}, hook {}, policy {}: {}\n", choice.mode, choice.hook,
                       choice.policy, choice.why);
    }
    return static_cast<int>(choice.mode.empty() ? Exit::impossible : Exit::ok);
}

} // namespace syngate
