// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/extensions.hpp"

#include "base/fd.hpp"
#include "iptables/own_rules.hpp"
#include "probe/switches.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>

namespace syngate {
namespace {

constexpr auto not_tried = "cannot add a rule on trial";

class Trial {
public:
    Trial(const Tool& tool, std::uint64_t owner, const rules::ExtensionSet& wanted)
        : tool_(tool), owner_(owner), mangle_(note_makings(tool, owner, rules::mangle, {})) {
        if (wanted.contains(rules::Extension::dnat))
            nat_ = note_makings(tool, owner, rules::nat, {});
    }

    [[nodiscard]] Result<void> apply(const rules::ExtensionSet& of) const {
        if (auto r = tool_.apply(not_tried, rules::trial(owner_, tool_.ipv6, mangle_, nat_, of)); !r)
            return r;
        if (!of.contains(rules::Extension::recent))
            return {};
        const std::string path = rules::list_path(rules::list_name(owner_, tool_.ipv6, "y"));
        if (const Fd list(::open(path.c_str(), O_WRONLY | O_CLOEXEC)); !list)
            return system_failure(fmt::format("cannot open {}", path), errno);
        return {};
    }

private:
    const Tool& tool_;
    std::uint64_t owner_;
    rules::Made mangle_;
    rules::Made nat_;
};

} // namespace

std::string Extensions::why_not(const rules::ExtensionSet& of) const {
    std::string text;
    for (const auto one : of)
        if (const auto found = missing.find(one); found != missing.end())
            text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", rules::name_of(one), found->second);
    return text;
}

Result<Extensions> try_extensions(const Tool& tool, std::uint64_t owner, const rules::ExtensionSet& wanted) {
    Extensions found;
    rules::ExtensionSet tried;
    for (const auto one : wanted) {
        if (switched_off(rules::name_of(one)))
            found.missing[one] = off_text;
        else
            tried.insert(one);
    }
    const Trial trial(tool, owner, tried);
    Result<void> r = trial.apply(tried);
    if (!r && r.error().exit == Exit::busy)
        return std::unexpected(r.error());
    if (!r) {
        r = trial.apply({});
        for (const auto one : tried) {
            const auto alone = r ? trial.apply({one}) : Result<void>{};
            if (!alone && alone.error().exit == Exit::busy)
                r = alone; // says nothing about the extension
            else if (!alone)
                found.missing[one] = alone.error().message;
        }
    }
    Result<void> removed;
    for (const char* table : {rules::mangle, rules::nat})
        if (table == rules::mangle || tried.contains(rules::Extension::dnat))
            if (const auto one = remove_parts(tool, table, owner, rules::trial_parts); !one)
                removed = std::unexpected(one.error());
    if (!r)
        return std::unexpected(r.error());
    if (!removed)
        return std::unexpected(removed.error());
    return found;
}

} // namespace syngate
