// SPDX-License-Identifier: GPL-2.0-or-later
// What the maps of every program family are used for alike.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

namespace syngate {

// Entry 0 of a per-CPU array whose value is nothing but 64-bit counters, over all CPUs. All 0 if the kernel
// refuses the look-up.
template <class Counters> Counters counted_on_all_cpus(const bpf_map* map) {
    static_assert(std::is_trivially_copyable_v<Counters> && sizeof(Counters) % sizeof(std::uint64_t) == 0);
    using Words = std::array<std::uint64_t, sizeof(Counters) / sizeof(std::uint64_t)>;
    std::vector<Words> per_cpu(static_cast<std::size_t>(std::max(libbpf_num_possible_cpus(), 1)));
    Words sum{};
    const std::uint32_t zero = 0;
    if (bpf_map_lookup_elem(bpf_map__fd(map), &zero, per_cpu.data()) == 0)
        for (const Words& one : per_cpu)
            std::ranges::transform(sum, one, sum.begin(), std::plus{});
    return std::bit_cast<Counters>(sum);
}

// Pins each under its name. Those that were pinned before the failure stay: the directory's owner removes it.
Result<void> pin_maps(std::initializer_list<bpf_map*> maps, const std::string& directory);

// Makes an object that is open, and not loaded yet, another instance of one that is: with its maps, and the
// values of its constants.
Result<void> be_alike(bpf_object* open, const bpf_object* loaded);

// A link of the sk_lookup program to this thread's network namespace; it holds as long as the descriptor.
Result<Fd> attach_sk_lookup(const bpf_program* program);

// What an entry of an mmapable array map holds, shared with the kernel. `size` is rounded up to pages; undone
// by unmap_entry(). Null with errno set.
void* map_entry(const bpf_map* map, std::size_t size);
void unmap_entry(void* entry, std::size_t size);

} // namespace syngate
