// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/gate_program.hpp"

#include "gate/tc_filters.hpp"

#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <spdlog/spdlog.h>
#include <string_view>

namespace syngate {

std::optional<GateProgram> inspect_gate_program(std::uint32_t program_id) {
    const Fd program(bpf_prog_get_fd_by_id(program_id));
    if (!program)
        return {};
    std::array<std::uint32_t, 16> map_ids{};
    bpf_prog_info info{};
    info.map_ids = reinterpret_cast<std::uint64_t>(map_ids.data());
    info.nr_map_ids = map_ids.size();
    std::uint32_t size = sizeof(info);
    if (bpf_obj_get_info_by_fd(program.get(), &info, &size) < 0 ||
        !(std::string_view(info.name).starts_with("syngate_tc") ||
          std::string_view(info.name).starts_with("syngate_div")))
        return {};

    GateProgram found;
    bool known = false;
    for (std::uint32_t i = 0; i < std::min<std::uint32_t>(info.nr_map_ids, map_ids.size()); ++i) {
        Fd map(bpf_map_get_fd_by_id(map_ids[i]));
        bpf_map_info about{};
        size = sizeof(about);
        if (!map || bpf_obj_get_info_by_fd(map.get(), &about, &size) < 0)
            continue;
        const std::string_view name(about.name);
        const std::uint32_t zero = 0;
        syngate_gate word{};
        if (name == "gate" && about.value_size == sizeof(word) &&
            bpf_map_lookup_elem(map.get(), &zero, &word) == 0) {
            known = word.abi_version == SYNGATE_ABI_VERSION;
            found.owner_id = word.owner_id;
        } else if (name == "interfaces" && about.value_size == sizeof(syngate_interface)) {
            found.interfaces = std::move(map);
        }
    }
    if (!known || !found.interfaces)
        return {};
    return found;
}

std::optional<syngate_interface> interface_of(const GateProgram& program, std::uint32_t ifindex) {
    syngate_interface entry{};
    if (bpf_map_lookup_elem(program.interfaces.get(), &ifindex, &entry) < 0)
        return {};
    return entry;
}

void release_clsact(std::uint32_t ifindex) {
    if (const auto filters = list_tc_filters(ifindex); filters) {
        for (const TcFilter& filter : *filters) {
            const auto heir = inspect_gate_program(filter.program_id);
            auto entry = heir ? interface_of(*heir, ifindex) : std::nullopt;
            if (!entry)
                continue;
            entry->made_qdisc = 1;
            bpf_map_update_elem(heir->interfaces.get(), &ifindex, &*entry, BPF_EXIST);
            return;
        }
    }
    if (const auto r = remove_clsact_if_empty(ifindex); !r)
        spdlog::error("{}", r.error().message);
}

} // namespace syngate
