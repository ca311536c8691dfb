// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/stale.hpp"

#include "control/registry.hpp"
#include "gate/filter_handle.hpp"
#include "gate/gate_program.hpp"
#include "gate/pins.hpp"
#include "gate/tc_filters.hpp"

#include <fmt/format.h>
#include <net/if.h>

namespace syngate {
namespace {

Result<void> sweep_interface(std::uint32_t ifindex, const char* name, std::vector<std::string>& removed) {
    const auto filters = list_tc_filters(ifindex);
    if (!filters)
        return std::unexpected(filters.error());
    bool made_qdisc = false;
    for (const TcFilter& filter : *filters) {
        if (!filter.ingress || filter.kind != "bpf" || filter.program_id == 0)
            continue;
        const auto program = inspect_gate_program(filter.program_id);
        const auto dead = program ? Result<bool>(!is_alive(program->owner_id)) : is_dead_by_handle(filter);
        if (!dead)
            return std::unexpected(dead.error());
        if (!*dead)
            continue;
        const auto entry = program ? interface_of(*program, ifindex) : std::nullopt;
        if (const auto r = remove_tc_filter(ifindex, filter.priority, filter.handle); !r)
            return r;
        removed.push_back(fmt::format("the tc filter of a dead agent on {}", name));
        made_qdisc |= (entry && entry->made_qdisc) || tells_of_made_qdisc({filter});
    }
    if (made_qdisc)
        release_clsact(ifindex);
    return {};
}

} // namespace

Result<std::vector<std::string>> sweep_stale(const std::string& pin_base) {
    std::vector<std::string> removed;
    struct if_nameindex* interfaces = if_nameindex();
    for (auto* each = interfaces; each && each->if_index != 0; ++each) {
        if (const auto r = sweep_interface(each->if_index, each->if_name, removed); !r) {
            if_freenameindex(interfaces);
            return std::unexpected(r.error());
        }
    }
    if_freenameindex(interfaces);

    const auto here = network_namespace();
    if (!here)
        return std::unexpected(here.error());
    for (const std::string& path : sweep_pins(pin_base, *here))
        removed.push_back(fmt::format("the pins {}", path));
    for (const std::string& path : sweep_pins_of_dead_namespaces(pin_base))
        removed.push_back(fmt::format("the pins {}", path));
    return removed;
}

} // namespace syngate
