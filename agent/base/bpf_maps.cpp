// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/bpf_maps.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

namespace syngate {
namespace {

std::size_t in_pages(std::size_t size) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return (size + page - 1) / page * page;
}

} // namespace

Result<void> pin_maps(std::initializer_list<bpf_map*> maps, const std::string& directory) {
    for (bpf_map* map : maps) {
        const std::string path = directory + "/" + bpf_map__name(map);
        if (const int r = bpf_map__pin(map, path.c_str()); r < 0)
            return system_failure(fmt::format("cannot pin {}", path), -r);
    }
    return {};
}

Result<void> be_alike(bpf_object* open, const bpf_object* loaded) {
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, open) {
        const char* name = bpf_map__name(map);
        bpf_map* model = bpf_object__find_map_by_name(loaded, name);
        int r = 0;
        if (bpf_map__is_internal(map)) { // constants: frozen, and each instance has its own
            std::size_t size = 0;
            const void* values = bpf_map__initial_value(model, &size);
            r = bpf_map__set_initial_value(map, values, size);
        } else if (bpf_map__autocreate(model)) {
            r = bpf_map__reuse_fd(map, bpf_map__fd(model));
        } else {
            r = bpf_map__set_autocreate(map, false);
        }
        if (r < 0)
            return system_failure(fmt::format("cannot share the BPF map '{}'", name), -r);
    }
    return {};
}

Result<Fd> attach_sk_lookup(const bpf_program* program) {
    const Fd here(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!here)
        return system_failure("cannot open this network namespace", errno);
    Fd link(bpf_link_create(bpf_program__fd(program), here.get(), BPF_SK_LOOKUP, nullptr));
    if (!link)
        return system_failure(fmt::format("cannot attach the sk_lookup program {} to this network namespace",
                                          bpf_program__name(program)),
                              errno, Exit::impossible);
    return link;
}

void* map_entry(const bpf_map* map, std::size_t size) {
    void* entry = mmap(nullptr, in_pages(size), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    return entry == MAP_FAILED ? nullptr : entry;
}

void unmap_entry(void* entry, std::size_t size) {
    if (entry)
        munmap(entry, in_pages(size));
}

} // namespace syngate
