// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/filter_handle.hpp"

#include "base/fd.hpp"
#include "control/registry.hpp"
#include "control/registry_protocol.hpp"

#include <algorithm>
#include <bpf/bpf.h>
#include <cerrno>
#include <string_view>

namespace syngate {
namespace {

constexpr std::uint32_t made_qdisc_bit = 1U << 31;
constexpr std::uint32_t divert_bit = 1U << 30;
constexpr std::uint32_t id_bits = ~(made_qdisc_bit | divert_bit);

// 30 bits of the id; not 0, which would let the kernel choose.
std::uint32_t short_id(std::uint64_t owner_id) {
    return std::max<std::uint32_t>(1, static_cast<std::uint32_t>(owner_id) & id_bits);
}

bool is_by_an_agent(const TcFilter& filter) {
    return filter.ingress && filter.kind == "bpf" &&
           (filter.program_name.starts_with("syngate_tc") || filter.program_name.starts_with("syngate_div"));
}

} // namespace

std::uint32_t filter_handle(std::uint64_t owner_id, TcRole role, bool made_qdisc) {
    return short_id(owner_id) | (role == TcRole::divert ? divert_bit : 0) | (made_qdisc ? made_qdisc_bit : 0);
}

bool tells_of_made_qdisc(const std::vector<TcFilter>& filters) {
    return std::ranges::any_of(
        filters, [](const TcFilter& f) { return is_by_an_agent(f) && (f.handle & made_qdisc_bit) != 0; });
}

Result<bool> is_dead_by_handle(const TcFilter& filter) {
    if (!is_by_an_agent(filter))
        return false;
    const Fd program(bpf_prog_get_fd_by_id(filter.program_id));
    if (program || errno != EPERM)
        return false;
    const auto ids = registry::list_ids();
    if (!ids)
        return std::unexpected(ids.error());
    return std::ranges::none_of(
        *ids, [&](std::uint64_t id) { return short_id(id) == (filter.handle & id_bits) && is_alive(id); });
}

} // namespace syngate
