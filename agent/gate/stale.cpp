// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/stale.hpp"

#include "base/fd.hpp"
#include "control/registry.hpp"
#include "gate/pins.hpp"
#include "gate/tc_filters.hpp"

#include <array>
#include <bpf/bpf.h>
#include <cstring>
#include <fmt/format.h>
#include <net/if.h>
#include <optional>
#include <string_view>
#include <syngate/abi.h>

namespace syngate {
namespace {

struct Owner {
    std::uint64_t id = 0;
    bool made_qdisc = false; // on the interface that was asked about
};

// Empty when the program is not a gate of this ABI.
std::optional<Owner> owner_of(std::uint32_t program_id, std::uint32_t ifindex) {
    const Fd program(bpf_prog_get_fd_by_id(program_id));
    if (!program)
        return {};
    std::array<std::uint32_t, 16> map_ids{};
    bpf_prog_info info{};
    info.map_ids = reinterpret_cast<std::uint64_t>(map_ids.data());
    info.nr_map_ids = map_ids.size();
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(program.get(), &info, &size) < 0 ||
        !std::string_view(info.name).starts_with("syngate_tc"))
        return {};

    Owner owner;
    bool known = false;
    for (std::uint32_t i = 0; i < std::min<std::uint32_t>(info.nr_map_ids, map_ids.size()); ++i) {
        const Fd map(bpf_map_get_fd_by_id(map_ids[i]));
        bpf_map_info about{};
        size = sizeof(about);
        if (!map || bpf_obj_get_info_by_fd(map.get(), &about, &size) < 0)
            continue;
        const std::string_view name(about.name);
        const std::uint32_t zero = 0;
        syngate_gate word{};
        syngate_interface interface {};
        if (name == "gate" && about.value_size == sizeof(word) &&
            bpf_map_lookup_elem(map.get(), &zero, &word) == 0) {
            known = word.abi_version == SYNGATE_ABI_VERSION;
            owner.id = word.owner_id;
        }
        if (name == "interfaces" && about.value_size == sizeof(interface) &&
            bpf_map_lookup_elem(map.get(), &ifindex, &interface) == 0)
            owner.made_qdisc = interface.made_qdisc != 0;
    }
    return known ? std::optional(owner) : std::nullopt;
}

Result<void> sweep_interface(std::uint32_t ifindex, const char* name, std::vector<std::string>& removed) {
    const auto filters = list_tc_filters(ifindex);
    if (!filters)
        return std::unexpected(filters.error());
    bool made_qdisc = false;
    for (const TcFilter& filter : *filters) {
        if (!filter.ingress || filter.kind != "bpf" || filter.program_id == 0)
            continue;
        const auto owner = owner_of(filter.program_id, ifindex);
        if (!owner || is_alive(owner->id))
            continue;
        if (const auto r = remove_tc_filter(ifindex, filter.priority, filter.handle); !r)
            return r;
        removed.push_back(fmt::format("the tc filter of a dead agent on {}", name));
        made_qdisc |= owner->made_qdisc;
    }
    return made_qdisc ? remove_clsact_if_empty(ifindex) : Result<void>{};
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
