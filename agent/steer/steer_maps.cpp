// SPDX-License-Identifier: GPL-2.0-or-later
#include "steer/steer_maps.hpp"

#include "base/bpf_maps.hpp"
#include "base/libbpf_messages.hpp"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <steer.skel.h>
#include <unistd.h>

namespace syngate {
namespace {

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
    unmap_entry(word_, sizeof(*word_));
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
    maps->word_ = static_cast<syngate_steer*>(map_entry(maps->skeleton_->maps.steer, sizeof(syngate_steer)));
    if (!maps->word_)
        return failed("map the steering's state");
    maps->word_->abi_version = SYNGATE_ABI_VERSION;
    maps->word_->owner_pid = static_cast<std::uint32_t>(getpid());
    maps->word_->owner_id = owner_id;
    return maps;
}

Result<Fd> SteerMaps::attach() const {
    return attach_sk_lookup(skeleton_->progs.syngate_steer);
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
    return counted_on_all_cpus<syngate_steer_verdicts>(skeleton_->maps.steer_verdicts);
}

Result<void> SteerMaps::pin(const std::string& directory) {
    const auto& maps = skeleton_->maps;
    return pin_maps({maps.steer, maps.steer_rules, maps.sockets, maps.steer_verdicts}, directory);
}

} // namespace syngate
