// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/tool.hpp"

#include "iptables/nft_table.hpp"
#include "iptables/program.hpp"
#include "probe/capabilities.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

namespace syngate {
namespace {

constexpr Duration tool_patience = std::chrono::seconds(10); // beyond the wait for the lock
constexpr int resource_problem = 4; // iptables(8): "resource problem", such as the lock

std::string on_one_line(std::string text) {
    std::ranges::replace(text, '\n', ' ');
    return text;
}

// Asking the legacy variant for a table's rules makes the table, and may load its module. Who may not read
// the names, as another user than root, cannot say that it is not there.
bool has_legacy_table(bool ipv6, const std::string& table) {
    const char* path = ipv6 ? "/proc/net/ip6_tables_names" : "/proc/net/ip_tables_names";
    std::ifstream names(path);
    if (!names)
        return ::access(path, F_OK) == 0;
    for (std::string name; std::getline(names, name);)
        if (name == table)
            return true;
    return false;
}

// All that iptables knows. To ask for them takes no program to be run.
constexpr std::array tables{"filter", "nat", "mangle", "raw", "security"};

bool has_table(const Tool& tool, const std::string& table) {
    return tool.variant == "legacy" ? has_legacy_table(tool.ipv6, table) : nft_table_exists(tool.ipv6, table);
}

Result<std::string> run_save(const Tool& tool, const std::vector<std::string>& more) {
    std::vector<std::string> argv{tool.save, "-M", "/bin/true"};
    argv.insert(argv.end(), more.begin(), more.end());
    auto result = run_program(argv, "", tool_patience);
    if (!result)
        return std::unexpected(result.error());
    if (!result->ok())
        return failure(Exit::failed, fmt::format("cannot read the rules by {} (status {}): {}", tool.save,
                                                 result->status, on_one_line(result->err)));
    return std::move(result->out);
}

} // namespace

Result<void> Tool::apply(const std::string& what, const std::string& rules, Duration lock_wait) const {
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(lock_wait);
    const auto result =
        run_program({restore, fmt::format("--wait={}", seconds.count()), "--modprobe=/bin/true", "--noflush"},
                    rules, seconds + tool_patience);
    if (!result)
        return failure(result.error().exit, fmt::format("{}: {}", what, result.error().message),
                       result.error().code);
    if (result->ok())
        return {};
    std::string message =
        fmt::format("{} by {} (status {}): {}", what, restore, result->status, on_one_line(result->err));
    if (const auto held = effective_capabilities(); held && !held->net_admin)
        return failure(Exit::impossible,
                       message + "; it needs the capability CAP_NET_ADMIN (in a container "
                                 "--cap-add=NET_ADMIN)",
                       EPERM);
    if (message.contains("lock file") && message.contains(std::strerror(EACCES)))
        return failure(Exit::impossible,
                       message + "; the file of the xtables lock must be writable, or another one named by "
                                 "XTABLES_LOCKFILE",
                       EACCES);
    if (result->status == resource_problem && variant == "legacy") {
        message += "; if another program holds the xtables lock, try again when it is done";
        return failure(Exit::busy, std::move(message), EBUSY);
    }
    return failure(Exit::failed, std::move(message));
}

Result<std::string> Tool::saved() const {
    if (std::ranges::none_of(tables, [&](const char* table) { return has_table(*this, table); }))
        return std::string();
    return run_save(*this, {"-c"});
}

Result<std::string> Tool::saved(const std::string& table) const {
    if (!has_table(*this, table))
        return std::string();
    return run_save(*this, {"-c", "-t", table});
}

} // namespace syngate
