// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/capabilities.hpp"

#include <cap-ng.h>
#include <utility>

namespace syngate {

std::vector<std::string> Capabilities::names() const {
    std::vector<std::string> result;
    for (const auto& [name, held] : {std::pair{"CAP_BPF", bpf},
                                     {"CAP_NET_ADMIN", net_admin},
                                     {"CAP_PERFMON", perfmon},
                                     {"CAP_SYS_ADMIN", sys_admin},
                                     {"CAP_SYS_PTRACE", sys_ptrace},
                                     {"CAP_SYS_RESOURCE", sys_resource},
                                     {"CAP_KILL", kill}})
        if (held)
            result.emplace_back(name);
    return result;
}

std::vector<std::string> Capabilities::missing_for_bpf() const {
    std::vector<std::string> result;
    if (!bpf && !sys_admin)
        result.emplace_back("CAP_BPF");
    if (!net_admin)
        result.emplace_back("CAP_NET_ADMIN");
    return result;
}

Result<Capabilities> effective_capabilities() {
    if (capng_get_caps_process() != 0)
        return failure(Exit::failed,
                       "cannot read this process's capabilities (libcap-ng; is /proc mounted for this PID "
                       "namespace?)");
    const auto held = [](unsigned capability) {
        return capng_have_capability(CAPNG_EFFECTIVE, capability) == 1;
    };
    return Capabilities{.bpf = held(CAP_BPF),
                        .net_admin = held(CAP_NET_ADMIN),
                        .perfmon = held(CAP_PERFMON),
                        .sys_admin = held(CAP_SYS_ADMIN),
                        .sys_ptrace = held(CAP_SYS_PTRACE),
                        .sys_resource = held(CAP_SYS_RESOURCE),
                        .kill = held(CAP_KILL)};
}

bool verifier_trusts() {
    const auto capabilities = effective_capabilities();
    return capabilities && (capabilities->perfmon || capabilities->sys_admin);
}

} // namespace syngate
