// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/least_privilege.hpp"

#include <algorithm>
#include <cap-ng.h>
#include <cctype>
#include <cerrno>
#include <fmt/format.h>
#include <functional>
#include <linux/securebits.h>
#include <set>
#include <sys/prctl.h>
#include <unistd.h>

namespace syngate {
namespace {

// There for the agent, or for nobody.
constexpr unsigned agents_alone[] = {CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE};

bool held(capng_type_t set, unsigned capability) {
    return capng_have_capability(set, capability) == 1;
}

// The headers' numbers are ints.
unsigned first_held(unsigned wanted, unsigned instead) {
    return held(CAPNG_EFFECTIVE, wanted) ? wanted : instead;
}

std::set<unsigned> needed(const PrivilegeNeeds& needs) {
    std::set<unsigned> result{CAP_NET_ADMIN}; // new interfaces, iptables' queue, routes
    if (needs.bpf)
        result.insert(first_held(CAP_BPF, CAP_SYS_ADMIN));
    if (needs.queues)
        result.insert(first_held(CAP_PERFMON, CAP_SYS_ADMIN));
    if (needs.iptables)
        result.insert({CAP_NET_RAW, CAP_DAC_OVERRIDE});
    if (needs.supervises)
        result.insert({CAP_KILL, CAP_SYS_PTRACE});
    if (needs.supervises || needs.others_files)
        result.insert(first_held(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH));
    return result;
}

// Whether a program that is started gets what is in the bounding set, whatever we hold ourselves.
bool root_gets_all_by_starting() {
    return ::getuid() == 0 && ::geteuid() == 0 && ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 &&
           (::prctl(PR_GET_SECUREBITS) & SECBIT_NOROOT) == 0;
}

Result<void> refused(const char* what) {
    return failure(Exit::failed, fmt::format("cannot give up {} (libcap-ng)", what));
}

Result<void> withhold(bool but_bpf) {
    for (const unsigned capability : agents_alone) {
        if (but_bpf && capability == CAP_BPF)
            continue;
        // To lower these takes no privilege, and they are all that the programs of another user than root
        // get.
        ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, capability, 0, 0);
        capng_update(CAPNG_DROP, CAPNG_INHERITABLE, capability);
        if (held(CAPNG_EFFECTIVE, CAP_SETPCAP))
            capng_update(CAPNG_DROP, CAPNG_BOUNDING_SET, capability);
    }
    if (!held(CAPNG_EFFECTIVE, CAP_SETPCAP))
        return ::geteuid() != 0 ? Result<void>{}
                                : failure(Exit::failed, "the server may have what only the agent needs, as "
                                                        "CAP_SETPCAP is missing to withhold it");
    // While CAP_SETPCAP is in effect.
    return capng_apply(CAPNG_SELECT_BOTH) == 0 ? Result<void>{} : refused("capabilities of the server");
}

// This kernel may have fewer than the headers know.
bool exists_here(unsigned capability) {
    return ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0;
}

std::string name_of_capability(unsigned capability) {
    const char* known = capng_capability_to_name(capability);
    std::string name = known ? fmt::format("CAP_{}", known) : fmt::format("CAP_{}", capability);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::toupper(c); });
    return name;
}

template <class Predicate> nlohmann::json names_of(Predicate has) {
    nlohmann::json result = nlohmann::json::array();
    for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability)
        if (exists_here(capability) && has(capability))
            result.push_back(name_of_capability(capability));
    return result;
}

bool server_may_have(unsigned capability) {
    if (::geteuid() != 0)
        return held(CAPNG_AMBIENT, capability);
    return held(CAPNG_BOUNDING_SET, capability) &&
           (root_gets_all_by_starting() || held(CAPNG_PERMITTED, capability));
}

} // namespace

Result<void> drop_privileges(const PrivilegeNeeds& needs) {
    if (capng_get_caps_process() != 0)
        return refused("what is not needed, as it is unknown what is held");
    Result<void> withheld;
    if (needs.withhold_from_server)
        withheld = withhold(needs.server_uses_bpf);
    const std::set<unsigned> kept = needed(needs);
    const bool for_others = needs.supervises && !root_gets_all_by_starting();
    const auto sets =
        static_cast<capng_type_t>(for_others ? CAPNG_EFFECTIVE : CAPNG_EFFECTIVE | CAPNG_PERMITTED);
    for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability)
        if (!kept.contains(capability))
            capng_update(CAPNG_DROP, sets, capability);
    if (capng_apply(CAPNG_SELECT_CAPS) != 0)
        return refused("what is not needed");
    return withheld;
}

nlohmann::json held_privileges() {
    if (capng_get_caps_process() != 0)
        return nlohmann::json::object();
    const auto in = [](capng_type_t set) {
        return [set](unsigned capability) { return held(set, capability); };
    };
    return {{"effective", names_of(in(CAPNG_EFFECTIVE))},
            {"permitted", names_of(in(CAPNG_PERMITTED))},
            {"server", names_of(server_may_have)},
            {"server_lacks", names_of(std::not_fn(server_may_have))}};
}

} // namespace syngate
