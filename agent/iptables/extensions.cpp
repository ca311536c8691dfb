// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/extensions.hpp"

#include "base/fd.hpp"
#include "iptables/nft_table.hpp"
#include "probe/switches.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>

namespace syngate {
namespace {

constexpr auto not_tried = "cannot add a rule on trial";

Result<void> apply_trial(const Tool& tool, const rules::Gate& gate, const std::set<rules::Extension>& of) {
    if (auto r = tool.apply(not_tried, rules::trial(gate, of)); !r)
        return r;
    if (!of.contains(rules::Extension::recent))
        return {};
    const std::string path = rules::list_path(gate);
    if (const Fd list(::open(path.c_str(), O_WRONLY | O_CLOEXEC)); !list)
        return system_failure(fmt::format("cannot open {}", path), errno);
    return {};
}

} // namespace

Result<Extensions> try_extensions(const Tool& tool, const rules::Gate& gate) {
    Extensions found;
    std::set<rules::Extension> wanted;
    for (const auto one : rules::extensions) {
        if (switched_off(rules::name_of(one)))
            found.missing[one] = off_text;
        else
            wanted.insert(one);
    }
    Result<void> r = apply_trial(tool, gate, wanted);
    if (!r && r.error().exit == Exit::busy)
        return std::unexpected(r.error());
    if (!r) {
        r = apply_trial(tool, gate, {});
        for (const auto one : wanted)
            if (r)
                if (const auto alone = apply_trial(tool, gate, {one}); !alone)
                    found.missing[one] = alone.error().message;
    }
    const auto removed = remove_rules(tool, gate.owner);
    if (!r)
        return std::unexpected(r.error());
    if (!removed)
        return std::unexpected(removed.error());
    return found;
}

void note_makings(const Tool& tool, rules::Gate& gate) {
    if (tool.variant != "nft")
        return; // legacy's tables come with the first look at them, and nobody can take them away
    const auto saved = tool.saved();
    const auto made = saved ? rules::made(*saved) : rules::Made{};
    gate.made_table = made.table || !nft_table_exists(tool.ipv6);
    gate.made_input_chain = made.input_chain || !nft_chain_exists(tool.ipv6, rules::hook);
}

Result<std::uint64_t> remove_rules(const Tool& tool, std::uint64_t owner, Duration lock_wait) {
    const auto saved = tool.saved();
    if (!saved)
        return std::unexpected(saved.error());
    const std::string removal = rules::removal(*saved, owner);
    if (!removal.empty())
        if (const auto r = tool.apply("cannot remove the gate's rules", removal, lock_wait); !r)
            return std::unexpected(r.error());
    const auto made = rules::made(*saved, owner);
    if (made.input_chain && rules::input_accepts(*saved))
        remove_nft_chain(tool.ipv6, rules::hook);
    if (made.table)
        remove_nft_table(tool.ipv6);
    return rules::judged(*saved, owner);
}

} // namespace syngate
