// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/divert_program.hpp"

#include "base/libbpf_messages.hpp"
#include "probe/capabilities.hpp"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <divert.skel.h>
#include <fcntl.h>
#include <fmt/format.h>

namespace syngate {

DivertProgram::~DivertProgram() {
    divert__destroy(skeleton_);
}

Result<std::unique_ptr<DivertProgram>> DivertProgram::load(const DivertOptions& options,
                                                           const GateMaps& gate) {
    const LibbpfMessages messages;
    const auto failed = [&](const char* what, int code) {
        const bool absent = code == EINVAL || code == EPERM || code == ENOENT;
        return failure(absent ? Exit::impossible : Exit::failed,
                       fmt::format("cannot {}: {}; it needs Linux 5.9, CAP_BPF and CAP_NET_ADMIN; "
                                   "--transparent off does without; {}",
                                   what, std::strerror(code), messages.text()),
                       code);
    };
    ::divert* skeleton = divert__open();
    if (!skeleton)
        return failed("open the divert program's BPF object", errno);
    std::unique_ptr<DivertProgram> program(new DivertProgram(skeleton));
    skeleton->rodata->mark = options.mark;
    skeleton->rodata->mask = options.mask;
    const bool intercepting = !options.intercepts.empty();
    skeleton->rodata->intercepting = intercepting;
    const auto capabilities = effective_capabilities();
    skeleton->rodata->may_look = capabilities && capabilities->verifier_trusts();
    bpf_program__set_autoload(skeleton->progs.syngate_offer, intercepting);
    for (const auto& [map, shared] : {std::pair(skeleton->maps.local_addresses, gate.local_addresses_fd()),
                                      std::pair(skeleton->maps.intercepts, gate.intercepts_fd())})
        if (const int r = bpf_map__reuse_fd(map, shared); r < 0)
            return failed("share the gate's maps with the divert program", -r);
    if (const int r = divert__load(skeleton); r < 0)
        return failed("load the divert program", -r);
    // So that whoever meets one as a filter learns whose it is, as from the gate's. Without (before Linux
    // 5.10) the filter's handle has to do.
    for (const bool ethernet : {true, false})
        for (const int map : {gate.gate_fd(), gate.interfaces_fd()})
            (void)bpf_prog_bind_map(program->tc_program(ethernet), map, nullptr);
    if (intercepting)
        if (const auto r = program->attach_to_namespace(); !r)
            return std::unexpected(r.error());
    return program;
}

Result<void> DivertProgram::attach_to_namespace() {
    const Fd here(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!here)
        return system_failure("cannot open this network namespace", errno);
    link_ = Fd(
        bpf_link_create(bpf_program__fd(skeleton_->progs.syngate_offer), here.get(), BPF_SK_LOOKUP, nullptr));
    if (!link_)
        return system_failure("cannot attach the sk_lookup program that intercepts to this network namespace",
                              errno, errno == EPERM ? Exit::impossible : Exit::failed);
    return {};
}

int DivertProgram::tc_program(bool ethernet) const {
    return bpf_program__fd(ethernet ? skeleton_->progs.syngate_divert : skeleton_->progs.syngate_div_l3);
}

syngate_divert_verdicts DivertProgram::verdicts() const {
    std::vector<syngate_divert_verdicts> per_cpu(
        static_cast<std::size_t>(std::max(libbpf_num_possible_cpus(), 1)));
    const std::uint32_t zero = 0;
    syngate_divert_verdicts sum{};
    if (bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.divert_verdicts), &zero, per_cpu.data()) < 0)
        return sum;
    for (const auto& one : per_cpu) {
#define SYNGATE_ADD(name, verdict, meaning) sum.name += one.name;
        SYNGATE_DIVERT_REASONS(SYNGATE_ADD)
#undef SYNGATE_ADD
    }
    return sum;
}

Result<void> DivertProgram::pin(const std::string& directory) {
    for (bpf_map* map : {skeleton_->maps.divert_verdicts, skeleton_->maps.intercept_listeners}) {
        const std::string path = directory + "/" + bpf_map__name(map);
        if (const int r = bpf_map__pin(map, path.c_str()); r < 0)
            return system_failure(fmt::format("cannot pin {}", path), -r);
    }
    return {};
}

} // namespace syngate
