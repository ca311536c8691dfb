// SPDX-License-Identifier: GPL-2.0-or-later
#include "steer/steer_maps.hpp"

#include "base/libbpf_messages.hpp"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <steer.skel.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace syngate {
namespace {

constexpr std::size_t page = 4096;

syngate_steer_key key_of(std::uint32_t generation, const ListenAddress& at) {
    syngate_steer_key key{};
    key.generation = generation;
    key.port = at.port;
    if (at.ipv6) {
        std::ranges::copy(at.address, key.address);
    } else {
        key.address[10] = key.address[11] = 0xff;
        std::copy_n(at.address.begin(), 4, key.address + 12);
    }
    return key;
}

} // namespace

SteerMaps::~SteerMaps() {
    if (word_)
        munmap(word_, page);
    steer__destroy(skeleton_);
}

Result<std::unique_ptr<SteerMaps>> SteerMaps::load(std::uint64_t owner_id) {
    std::unique_ptr<SteerMaps> maps(new SteerMaps);
    const LibbpfMessages messages;
    const auto failed = [&](const char* what) {
        const int code = errno;
        return failure(Exit::impossible,
                       fmt::format("cannot {}: {}; {}", what, std::strerror(code), messages.text()), code);
    };
    maps->skeleton_ = steer__open_and_load();
    if (!maps->skeleton_)
        return failed("load the steering's BPF programs");
    void* word =
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(maps->skeleton_->maps.steer), 0);
    if (word == MAP_FAILED)
        return failed("map the steering's state");
    maps->word_ = static_cast<syngate_steer*>(word);
    maps->word_->abi_version = SYNGATE_ABI_VERSION;
    maps->word_->owner_pid = static_cast<std::uint32_t>(getpid());
    maps->word_->owner_id = owner_id;
    return maps;
}

Result<Fd> SteerMaps::attach() const {
    const Fd here(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!here)
        return system_failure("cannot open /proc/self/ns/net", errno);
    Fd link(bpf_link_create(lookup_program(), here.get(), BPF_SK_LOOKUP, nullptr));
    if (!link)
        return system_failure("cannot attach an sk_lookup program to this network namespace", errno,
                              Exit::impossible);
    return link;
}

int SteerMaps::lookup_program() const {
    return bpf_program__fd(skeleton_->progs.syngate_steer);
}

int SteerMaps::capture_program() const {
    return bpf_program__fd(skeleton_->progs.syngate_capture);
}

int SteerMaps::sockets() const {
    return bpf_map__fd(skeleton_->maps.sockets);
}

Result<void> SteerMaps::set_rule(std::uint32_t generation, const ListenAddress& at,
                                 const syngate_steer_rule& rule) {
    const syngate_steer_key key = key_of(generation, at);
    if (const int r = bpf_map_update_elem(bpf_map__fd(skeleton_->maps.steer_rules), &key, &rule, BPF_ANY);
        r < 0)
        return system_failure(
            fmt::format("cannot add the rule for {} to the BPF map 'steer_rules'", to_string(at)), -r);
    return {};
}

void SteerMaps::remove_rule(std::uint32_t generation, const ListenAddress& at) {
    const syngate_steer_key key = key_of(generation, at);
    bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.steer_rules), &key);
}

syngate_steer_rule SteerMaps::rule(std::uint32_t generation, const ListenAddress& at) const {
    const syngate_steer_key key = key_of(generation, at);
    syngate_steer_rule rule{};
    bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.steer_rules), &key, &rule);
    return rule;
}

std::uint64_t SteerMaps::cookie_in(std::uint32_t slot) const {
    std::uint64_t cookie = 0;
    return bpf_map_lookup_elem(sockets(), &slot, &cookie) < 0 ? 0 : cookie;
}

void SteerMaps::clear_slot(std::uint32_t slot) {
    bpf_map_delete_elem(sockets(), &slot);
}

void SteerMaps::activate(std::uint32_t generation) {
    __atomic_store_n(&word_->active, generation, __ATOMIC_RELEASE);
}

syngate_steer_verdicts SteerMaps::verdicts() const {
    std::vector<syngate_steer_verdicts> per_cpu(
        static_cast<std::size_t>(std::max(libbpf_num_possible_cpus(), 1)));
    const std::uint32_t zero = 0;
    syngate_steer_verdicts sum{};
    if (bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.steer_verdicts), &zero, per_cpu.data()) < 0)
        return sum;
    for (const auto& one : per_cpu) {
#define SYNGATE_ADD(name, meaning) sum.name += one.name;
        SYNGATE_STEER_REASONS(SYNGATE_ADD)
#undef SYNGATE_ADD
    }
    return sum;
}

Result<void> SteerMaps::pin(const std::string& directory) {
    bpf_map* const shown[] = {skeleton_->maps.steer, skeleton_->maps.steer_rules, skeleton_->maps.sockets,
                              skeleton_->maps.steer_verdicts};
    for (bpf_map* map : shown) {
        const std::string path = directory + "/" + bpf_map__name(map);
        if (const int r = bpf_map__pin(map, path.c_str()); r < 0)
            return system_failure(fmt::format("cannot pin {}", path), -r);
    }
    return {};
}

} // namespace syngate
