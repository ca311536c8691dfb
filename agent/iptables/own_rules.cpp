// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/own_rules.hpp"

#include "iptables/nft_table.hpp"
#include "iptables/redirected.hpp"
#include "iptables/rules_redirect.hpp"

#include <algorithm>
#include <numeric>

namespace syngate {
namespace {

constexpr auto cannot_remove = "cannot remove our rules";
const rules::Parts all_parts_but_notes{"", "-p", "-v", "-c", "-f", "-d", "-l", "-n", "-y"};

// In one step if nobody else has come to use what was made, so that no kill can come between.
void remove_makings(const Tool& tool, const std::string& table, std::uint64_t owner,
                    const std::string& saved) {
    const auto notes = rules::notes_of(saved, table, owner);
    if (notes.empty())
        return;
    const auto made = rules::made(saved, table, owner), others = rules::made_by_others(saved, table, owner);
    std::vector<std::string> chains = notes;
    for (const std::string& hook : made.chains)
        if (!others.chains.contains(hook) && rules::accepts(saved, table, hook) &&
            nft_chain_exists(tool.ipv6, table, hook))
            chains.push_back(hook);
    if (made.table && remove_nft(tool.ipv6, table, chains, true) == 0)
        return;
    if (remove_nft(tool.ipv6, table, chains, false) == 0)
        return;
    for (auto chain = chains.rbegin(); chain != chains.rend(); ++chain)
        (void)remove_nft(tool.ipv6, table, {*chain}, false);
}

} // namespace

rules::Made note_makings(const Tool& tool, std::uint64_t owner, const std::string& table,
                         const std::set<std::string>& hooks, const std::optional<std::string>& said) {
    rules::Made made;
    if (tool.variant != "nft")
        return made; // legacy's tables come with the first look at them, and nobody can take them away
    const auto saved = said ? Result<std::string>(*said) : tool.saved(table);
    if (saved) {
        made = rules::made(*saved, table, owner); // stays noted
        const auto by_any = rules::made(*saved, table);
        made.table |= by_any.table;
        std::ranges::set_intersection(by_any.chains, hooks, std::inserter(made.chains, made.chains.end()));
    }
    made.table |= !nft_table_exists(tool.ipv6, table);
    for (const std::string& hook : hooks)
        if (!nft_chain_exists(tool.ipv6, table, hook))
            made.chains.insert(hook);
    return made;
}

Result<std::string> remove_parts(const Tool& tool, const std::string& table, std::uint64_t owner,
                                 const rules::Parts& parts, Duration lock_wait, bool keep_makings) {
    auto saved = tool.saved(table);
    if (!saved)
        return saved;
    const std::string removal = rules::removal(*saved, table, owner, parts);
    if (!removal.empty())
        if (const auto r = tool.apply(cannot_remove, removal, lock_wait); !r)
            return std::unexpected(r.error());
    if (keep_makings || rules::notes_of(*saved, table, owner).empty())
        return saved;
    const auto left = tool.saved(table);
    if (left && !rules::has_chains(*left, table, owner))
        remove_makings(tool, table, owner, *left);
    return saved;
}

Result<bool> remove_everything(const Tool& tool, std::uint64_t owner) {
    const auto connections = retire_redirects(tool, owner);
    if (!connections)
        return std::unexpected(connections.error());
    for (const char* table : {rules::mangle, rules::nat}) {
        if (table == rules::nat && *connections > 0)
            continue;
        if (const auto r = remove_parts(tool, table, owner, all_parts_but_notes); !r)
            return std::unexpected(r.error());
    }
    return *connections == 0;
}

Result<std::size_t> retire_redirects(const Tool& tool, std::uint64_t owner, Duration lock_wait) {
    const auto saved = tool.saved(rules::nat);
    if (!saved)
        return std::unexpected(saved.error());
    if (const std::string jumps = rules::jumps_removal(*saved, rules::nat, owner, rules::redirect_parts);
        !jumps.empty())
        if (const auto r = tool.apply(cannot_remove, jumps, lock_wait); !r)
            return std::unexpected(r.error());
    const auto counts = count_redirected(rules::redirects_in(*saved, owner, tool.ipv6));
    const std::size_t connections = std::reduce(counts.begin(), counts.end());
    if (connections > 0)
        return connections;
    if (const auto r = remove_parts(tool, rules::nat, owner, rules::redirect_parts, lock_wait); !r)
        return std::unexpected(r.error());
    return 0;
}

} // namespace syngate
