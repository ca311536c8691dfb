// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <string>
#include <vector>

namespace syngate {

// What this process may do now (its effective set), of what the agent has a use for.
struct Capabilities {
    bool bpf = false;
    bool net_admin = false;
    bool perfmon = false;
    bool sys_admin = false;
    bool sys_ptrace = false;
    bool sys_resource = false;
    bool kill = false;

    [[nodiscard]] std::vector<std::string> names() const; // "CAP_BPF", ...
    // What is lacking for loading and attaching programs: CAP_BPF (CAP_SYS_ADMIN will do) and CAP_NET_ADMIN.
    // Empty: nothing.
    [[nodiscard]] std::vector<std::string> missing_for_bpf() const;
};

Result<Capabilities> effective_capabilities();

// Whether this process has CAP_PERFMON or CAP_SYS_ADMIN: the verifier lets nobody else add a variable to a
// pointer, and loads no iterator for others. False if the capabilities cannot be read.
bool verifier_trusts();

} // namespace syngate
