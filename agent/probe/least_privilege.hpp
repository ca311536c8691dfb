// SPDX-License-Identifier: GPL-2.0-or-later
// What the agent gives up once everything is loaded and attached, and what it then holds.
#pragma once

#include "base/result.hpp"

#include <nlohmann/json.hpp>

namespace syngate {

struct PrivilegeNeeds {
    bool bpf = false;    // to use BPF objects: CAP_BPF, or where that is not held CAP_SYS_ADMIN
    bool queues = false; // to read the queues of listening sockets by an iterator, which is loaded later
    bool iptables =
        false; // to run iptables, whose legacy variant asks for CAP_NET_RAW, and to renew its leases
    bool supervises = false;   // a server: to signal it, to see its sockets, to read its configuration
    bool others_files = false; // files of the agent are made and removed in another user's directory
    // The server is of a kind that has no use for what is there for the agent alone,
    bool withhold_from_server = false;
    bool server_uses_bpf = false; // but for CAP_BPF
};

// Gives up for good what is not needed. What programs that are started later may have stays as it was, except
// for CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE with withhold_from_server: it comes from the bounding set where
// root starts them, else from what the agent is permitted, which is then kept but not in effect. To be called
// from the only thread.
Result<void> drop_privileges(const PrivilegeNeeds& needs);

// {"effective": ["CAP_BPF", ...], "permitted": [...], "server": what a program that is started may have,
// "server_lacks": what not}
nlohmann::json held_privileges();

} // namespace syngate
