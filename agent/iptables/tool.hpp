// SPDX-License-Identifier: GPL-2.0-or-later
// One family's programs of one variant of iptables, called with an argument vector. iptables is kept from
// running modprobe; what the kernel loads by itself when a rule asks for it is the kernel's business.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"

#include <string>

namespace syngate {

struct Tool {
    std::string variant; // "nft", "legacy"
    bool ipv6 = false;
    std::string iptables; // paths
    std::string save;
    std::string restore;

    // One atomic step: all of it or nothing. `what` begins the error message: "cannot close the gate". Waits
    // for the xtables lock (of the legacy variant) for at most lock_wait, rounded up to seconds: Exit::busy
    // then.
    [[nodiscard]] Result<void> apply(const std::string& what, const std::string& rules,
                                     Duration lock_wait = std::chrono::seconds(5)) const;
    // With counters; of one table, or of all. Reading changes nothing: a table that is not there is "".
    [[nodiscard]] Result<std::string> saved(const std::string& table) const;
    [[nodiscard]] Result<std::string> saved() const;
};

} // namespace syngate
