// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/gate_maps.hpp"

#include "base/bpf_maps.hpp"
#include "base/libbpf_messages.hpp"
#include "probe/capabilities.hpp"

#include <algorithm>
#include <bit>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gate.skel.h>
#include <numeric>
#include <unistd.h>

namespace syngate {
namespace {

const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));

Error map_failure(const std::string& what, const char* map, int code) {
    return {Exit::failed, fmt::format("cannot {} in the BPF map '{}': {}", what, map, std::strerror(code)),
            code};
}

std::string what_is_missing() {
    const auto capabilities = effective_capabilities();
    if (!capabilities || capabilities->missing_for_bpf().empty())
        return ", though the capabilities are there: a seccomp profile or a security module may say no "
               "(that of podman 4.3 does: see deploy/container/seccomp-profile)";
    std::string flags; // as an engine's command line has them
    for (const std::string& name : capabilities->missing_for_bpf())
        flags += " --cap-add=" + name.substr(std::string_view("CAP_").size());
    return fmt::format(", missing {}: add it (in a container{}), or run as root",
                       fmt::join(capabilities->missing_for_bpf(), " and "), flags);
}

// By errno.
std::unexpected<Error> cannot(const char* what, const LibbpfMessages& messages) {
    const int code = errno;
    // EACCES is the verifier's; ENOSYS a seccomp profile's, or a kernel's without BPF.
    const bool denied = code == EPERM || code == ENOSYS || (code == EACCES && !verifier_trusts());
    return failure(denied ? Exit::impossible : Exit::failed,
                   fmt::format("cannot {}: {}{}; {}", what, std::strerror(code),
                               code == EPERM || code == ENOSYS ? what_is_missing()
                               : denied ? ": this kernel's verifier asks for CAP_PERFMON, add it"
                                        : "",
                               messages.text()),
                   code);
}

} // namespace

struct GateMaps::Ring {
    ring_buffer* buffer = nullptr;
    std::function<void(const syngate_parked&, std::span<const std::uint8_t>)> take;
    ~Ring() { ring_buffer__free(buffer); }

    static int consume(void* context, void* data, std::size_t size) {
        const auto* ring = static_cast<Ring*>(context);
        const auto* head = static_cast<const syngate_parked*>(data);
        if (size >= sizeof(*head) && size - sizeof(*head) >= head->frame_len && ring->take)
            ring->take(*head, {static_cast<const std::uint8_t*>(data) + sizeof(*head), head->frame_len});
        return 0;
    }
};

GateMaps::GateMaps() = default;

GateMaps::~GateMaps() {
    unmap_entry(word_, sizeof(*word_));
    ring_.reset();
    gate__destroy(l3_);
    gate__destroy(skeleton_);
}

Result<std::unique_ptr<GateMaps>> GateMaps::load(const Plan& plan) {
    std::unique_ptr<GateMaps> maps(new GateMaps);
    const LibbpfMessages messages;
    const auto failed = [&](const char* what) { return cannot(what, messages); };
    const bool perfmon = verifier_trusts();

    maps->skeleton_ = gate__open();
    if (!maps->skeleton_)
        return failed("open the gate's BPF object");
    auto& skeleton = *maps->skeleton_;
    skeleton.rodata->can_hold = plan.can_hold;
    skeleton.rodata->xdp_reads_directly = perfmon;
    // Without both, this kernel is older than the helper that would copy.
    if (!plan.for_xdp || (!perfmon && !plan.can_hold))
        bpf_program__set_autoload(skeleton.progs.syngate_xdp, false);
    bpf_program__set_autoload(skeleton.progs.syngate_tc_l3, false);
    skeleton.rodata->intercepting = !plan.intercepts.empty();
    maps->park_memory_ = plan.can_hold ? std::bit_ceil(std::max(plan.park_memory, page)) : page;
    bpf_map__set_max_entries(skeleton.maps.parked, static_cast<std::uint32_t>(maps->park_memory_));
    if (!plan.can_hold)
        bpf_map__set_autocreate(skeleton.maps.parked, false);
    if (gate__load(maps->skeleton_) != 0)
        return failed("load the gate's BPF programs");

    maps->word_ = static_cast<syngate_gate*>(map_entry(skeleton.maps.gate, sizeof(syngate_gate)));
    if (!maps->word_)
        return failed("map the gate's state");
    maps->word_->abi_version = SYNGATE_ABI_VERSION;
    maps->word_->owner_pid = static_cast<std::uint32_t>(getpid());
    maps->word_->owner_id = plan.owner_id;

    maps->ring_ = std::make_unique<Ring>();
    maps->can_hold_ = plan.can_hold;
    if (const auto r = maps->map_parked(); !r) // it is possible
        return std::unexpected(r.error());
    maps->unmap_parked();
    if (const auto r = maps->set_intercepts(plan.intercepts); !r)
        return std::unexpected(r.error());
    return maps;
}

Result<void> GateMaps::set_intercepts(const std::vector<Intercept>& intercepts) {
    for (const Intercept& rule : intercepts) {
        const syngate_intercept_key key = key_of(rule);
        const syngate_intercept value = {.listen_port = rule.listen_port};
        if (const int r = bpf_map_update_elem(intercepts_fd(), &key, &value, BPF_ANY); r < 0)
            return std::unexpected(map_failure(fmt::format("add the rule {}", rule.text), "intercepts", -r));
    }
    return {};
}

int GateMaps::gate_fd() const {
    return bpf_map__fd(skeleton_->maps.gate);
}

int GateMaps::interfaces_fd() const {
    return bpf_map__fd(skeleton_->maps.interfaces);
}

int GateMaps::local_addresses_fd() const {
    return bpf_map__fd(skeleton_->maps.local_addresses);
}

int GateMaps::intercepts_fd() const {
    return bpf_map__fd(skeleton_->maps.intercepts);
}

int GateMaps::tc_program() const {
    return bpf_program__fd(skeleton_->progs.syngate_tc);
}

Result<int> GateMaps::tc_program_l3() {
    if (l3_)
        return bpf_program__fd(l3_->progs.syngate_tc_l3);
    const LibbpfMessages messages;
    const auto failed = [&] {
        return cannot("load the gate for devices without an Ethernet header", messages);
    };
    std::unique_ptr<::gate, decltype(&gate__destroy)> l3(gate__open(), &gate__destroy);
    if (!l3)
        return failed();
    for (bpf_program* other : {l3->progs.syngate_tc, l3->progs.syngate_xdp})
        bpf_program__set_autoload(other, false);
    if (const auto r = be_alike(l3->obj, skeleton_->obj); !r)
        return std::unexpected(r.error());
    if (gate__load(l3.get()) != 0)
        return failed();
    l3_ = l3.release();
    return bpf_program__fd(l3_->progs.syngate_tc_l3);
}

int GateMaps::xdp_program() const {
    return bpf_program__fd(skeleton_->progs.syngate_xdp);
}

// Those of the window before stay until the new ones are there, and do not count then.
Result<void> GateMaps::stage_listeners(const std::set<ListenAddress>& listeners, std::uint32_t generation) {
    const int fd = bpf_map__fd(skeleton_->maps.staged_listeners);
    const auto key_of = [](const ListenAddress& at, std::uint32_t of) {
        syngate_staged_listener key{};
        key.generation = of;
        key.port = at.port;
        if (at.ipv6) {
            std::ranges::copy(at.address, key.address);
        } else {
            key.address[10] = key.address[11] = 0xff;
            std::copy_n(at.address.begin(), 4, key.address + 12);
        }
        return key;
    };
    const std::uint32_t present = 1;
    const auto remove = [&](const std::set<ListenAddress>& all, std::uint32_t of) {
        for (const ListenAddress& at : all) {
            const auto key = key_of(at, of);
            bpf_map_delete_elem(fd, &key);
        }
    };
    for (const ListenAddress& at : listeners) {
        const auto key = key_of(at, generation);
        const int r = bpf_map_update_elem(fd, &key, &present, BPF_ANY);
        if (r == 0)
            continue;
        remove(listeners, generation);
        return std::unexpected(
            map_failure(fmt::format("stage the listener {}", to_string(at)), "staged_listeners", -r));
    }
    remove(staged_listeners_, generation - 1);
    staged_listeners_ = listeners;
    return {};
}

Result<std::uint32_t> GateMaps::stage(const PortSet& ports, Policy policy,
                                      const std::set<ListenAddress>& intercepting) {
    if (const auto r = stage_listeners(intercepting, generation_ + 1); !r)
        return std::unexpected(r.error());
    const int fd = bpf_map__fd(skeleton_->maps.ports);
    for (const std::uint16_t port : staged_)
        if (!ports.contains(port))
            bpf_map_delete_elem(fd, &port);
    staged_ = ports;

    const syngate_port entry = {.generation = ++generation_,
                                .policy = policy == Policy::hold ? std::uint32_t{SYNGATE_POLICY_HOLD}
                                                                 : std::uint32_t{SYNGATE_POLICY_DROP}};
    for (const std::uint16_t port : ports)
        if (const int r = bpf_map_update_elem(fd, &port, &entry, BPF_ANY); r < 0)
            return std::unexpected(map_failure(fmt::format("stage port {}", port), "ports", -r));
    return generation_;
}

void GateMaps::close(std::uint32_t generation, Time now, Time until, Time longest) {
    word_->generation = generation;
    word_->closed_at_ns = to_ns(now);
    word_->max_until_ns = to_ns(longest);
    set_lease(until);
}

void GateMaps::set_lease(Time until) {
    __atomic_store_n(&word_->closed_until_ns, to_ns(until), __ATOMIC_RELEASE);
}

void GateMaps::open() {
    __atomic_store_n(&word_->closed_until_ns, 0, __ATOMIC_RELEASE);
}

Result<void> GateMaps::set_local(const std::set<LocalPrefix>& here, const std::set<LocalPrefix>& in_vrf,
                                 bool local_first) {
    __atomic_store_n(&word_->local_first, local_first ? 1U : 0U, __ATOMIC_RELAXED);
    const int fd = bpf_map__fd(skeleton_->maps.local_addresses);
    const auto key_of = [](const LocalPrefix& prefix) {
        syngate_prefix key{};
        key.prefix_len = prefix.bits;
        std::ranges::copy(prefix.address, key.address);
        return key;
    };
    std::map<LocalPrefix, std::uint32_t> wanted;
    for (const LocalPrefix& prefix : in_vrf)
        wanted[prefix] = SYNGATE_LOCAL_VRF;
    for (const LocalPrefix& prefix : here)
        wanted[prefix] = SYNGATE_LOCAL_HERE;
    Result<void> result;
    for (const auto& [prefix, where] : wanted) {
        if (const auto present = local_.find(prefix); present != local_.end() && present->second == where)
            continue;
        const syngate_prefix key = key_of(prefix);
        if (const int r = bpf_map_update_elem(fd, &key, &where, BPF_ANY); r == 0)
            local_[prefix] = where;
        else if (result)
            result = std::unexpected(map_failure("add an address", "local_addresses", -r));
    }
    std::erase_if(local_, [&](const auto& entry) {
        const syngate_prefix key = key_of(entry.first);
        return !wanted.contains(entry.first) && bpf_map_delete_elem(fd, &key) == 0;
    });
    return result;
}

Result<void> GateMaps::set_interface(std::uint32_t ifindex, const syngate_interface& interface) {
    if (const int r =
            bpf_map_update_elem(bpf_map__fd(skeleton_->maps.interfaces), &ifindex, &interface, BPF_ANY);
        r < 0)
        return std::unexpected(map_failure(fmt::format("add {}", interface.name), "interfaces", -r));
    return {};
}

std::optional<syngate_interface> GateMaps::remove_interface(std::uint32_t ifindex) {
    const int fd = bpf_map__fd(skeleton_->maps.interfaces);
    syngate_interface entry{};
    if (bpf_map_lookup_elem(fd, &ifindex, &entry) < 0)
        return {};
    bpf_map_delete_elem(fd, &ifindex);
    return entry;
}

syngate_verdicts GateMaps::verdicts() const {
    return counted_on_all_cpus<syngate_verdicts>(skeleton_->maps.verdicts);
}

Result<void> GateMaps::map_parked() {
    if (!can_hold_ || ring_->buffer)
        return {};
    ring_->buffer =
        ring_buffer__new(bpf_map__fd(skeleton_->maps.parked), Ring::consume, ring_.get(), nullptr);
    if (!ring_->buffer)
        return system_failure("cannot map the park memory, give it less (--park-memory)", errno);
    return {};
}

void GateMaps::unmap_parked() {
    ring_buffer__free(std::exchange(ring_->buffer, nullptr));
}

bool GateMaps::parked_is_mapped() const {
    return ring_->buffer != nullptr;
}

Result<void>
GateMaps::consume(const std::function<void(const syngate_parked&, std::span<const std::uint8_t>)>& take) {
    if (!can_hold_)
        return {};
    if (const auto r = map_parked(); !r)
        return r;
    ring_->take = take;
    while (ring_buffer__consume(ring_->buffer) > 0) {
    }
    ring_->take = nullptr;
    return {};
}

int GateMaps::ring_fd() const {
    return can_hold_ ? bpf_map__fd(skeleton_->maps.parked) : -1;
}

Result<void> GateMaps::pin(const std::string& directory) {
    const auto& maps = skeleton_->maps;
    return pin_maps({maps.gate, maps.ports, maps.verdicts, maps.interfaces, maps.local_addresses,
                     maps.intercepts, maps.staged_listeners},
                    directory);
}

} // namespace syngate
