// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/probe.hpp"

#include "iptables/extensions.hpp"
#include "iptables/packet_queue.hpp"
#include "iptables/variant.hpp"
#include "probe/scratch_child.hpp"
#include "probe/switches.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace syngate {
namespace {

constexpr Duration scratch_patience = std::chrono::seconds(60);
constexpr std::uint64_t trial_owner = 0; // no agent's: ids are random

Feature made(std::string_view name, bool available, std::string how) {
    std::ranges::replace(how, '\n', ' ');
    return {.name = std::string(name), .available = available, .how = std::move(how)};
}

std::string_view feature_of(const Variant& variant) {
    return variant.name == "nft" ? feature::iptables_nft : feature::iptables_legacy;
}

// In the scratch namespace: the variant's own feature first.
Features try_variant(const Variant& variant) {
    Features result;
    for (const Tool& tool : variant.tools) {
        const auto tried = try_extensions(tool, trial_owner, rules::all_extensions);
        const auto name = tool.ipv6 ? feature::ip6tables : feature_of(variant);
        result.push_back(made(name, tried.has_value(),
                              fmt::format("adding rules by {} in a scratch namespace: {}", tool.restore,
                                          tried ? "ok" : tried.error().message)));
        for (const auto extension : rules::all_extensions) {
            if (!tried || (tool.ipv6 && !find_feature(result, rules::name_of(extension))->available))
                continue;
            const auto missing = tried->missing.find(extension);
            Feature one = made(rules::name_of(extension), missing == tried->missing.end(),
                               missing == tried->missing.end() ? "a rule with it: ok" : missing->second);
            std::erase_if(result, [&](const Feature& each) { return each.name == one.name; });
            result.push_back(std::move(one));
        }
    }
    for (Feature& one : result)
        if (one.name == feature::nfqueue && one.available)
            if (const auto queue = PacketQueue::open(0, 0); !queue)
                one = made(feature::nfqueue, false, queue.error().message);
    return result;
}

Features from_json(const nlohmann::json& list) {
    Features result;
    for (const auto& one : list)
        result.push_back({one.value("name", ""), one.value("available", false), one.value("how", "")});
    return result;
}

Features try_in_scratch(const Variant& variant) {
    const auto said =
        in_scratch_namespace([&] { return features_to_json(try_variant(variant)).dump(); }, scratch_patience);
    if (said)
        return from_json(nlohmann::json::parse(*said, nullptr, false));
    Features result{made(feature_of(variant), true, fmt::format("not probed: {}", said.error().message))};
    if (variant.tools.size() > 1)
        result.push_back(made(feature::ip6tables, true, result.front().how));
    for (const auto extension : rules::all_extensions) {
        const bool off = switched_off(rules::name_of(extension));
        result.push_back(made(rules::name_of(extension), !off, off ? off_text : result.front().how));
    }
    return result;
}

} // namespace

Features probe_iptables() {
    Features result;
    for (const Variant& variant : find_variants()) {
        const bool first = std::ranges::none_of(result, &Feature::available);
        Features found = try_in_scratch(variant);
        if (first) { // what is behind it is no better
            result.insert(result.begin(), found.begin(), found.end());
        } else if (!found.empty()) {
            result.push_back(found.front());
        }
    }
    Features once; // of what was found for several variants, the best one's
    for (Feature& one : result)
        if (!find_feature(once, one.name))
            once.push_back(std::move(one));
    result = std::move(once);
    std::ranges::stable_partition(result,
                                  [](const Feature& one) { return one.name.starts_with("iptables_"); });
    for (const std::string_view name :
         {feature::iptables_nft, feature::iptables_legacy, feature::ip6tables, feature::xt_multiport,
          feature::xt_recent, feature::xt_time, feature::nfqueue, feature::xt_addrtype, feature::xt_socket,
          feature::xt_mark, feature::xt_tproxy, feature::xt_dnat})
        if (!find_feature(result, name))
            result.push_back(
                made(name, false,
                     switched_off(name)                 ? off_text
                     : name == feature::iptables_nft    ? "there is no iptables-nft, -save and -restore"
                     : name == feature::iptables_legacy ? "there is no iptables-legacy, -save and -restore"
                                                        : "not probed: it needs iptables"));
    return result;
}

std::string best_variant(const Features& features) {
    for (const Feature& one : features) // in the order of choice
        if (one.available && (one.name == feature::iptables_nft || one.name == feature::iptables_legacy))
            return one.name == feature::iptables_nft ? "nft" : "legacy";
    return "";
}

} // namespace syngate
