// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/divert_program.hpp"

#include "base/bpf_maps.hpp"
#include "base/libbpf_messages.hpp"
#include "probe/capabilities.hpp"
#include "probe/switches.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <divert.skel.h>
#include <fmt/format.h>

namespace syngate {

DivertProgram::~DivertProgram() {
    divert__destroy(skeleton_);
}

Result<std::unique_ptr<DivertProgram>> DivertProgram::load(const DivertOptions& options,
                                                           const GateMaps& gate) {
    const LibbpfMessages messages;
    const auto failed = [&](const char* what, int code) {
        return failure(Exit::impossible,
                       fmt::format("cannot {}: {}; it needs Linux 5.9, CAP_BPF and CAP_NET_ADMIN; "
                                   "--transparent off does without; {}",
                                   what, std::strerror(code), messages.text()),
                       code);
    };
    for (const std::string_view name : {feature::divert, feature::sk_lookup})
        if (switched_off(name) && (name == feature::divert || !options.intercepts.empty()))
            return failure(Exit::impossible,
                           fmt::format("{} is {}; --transparent off does without", name, off_text));
    ::divert* skeleton = divert__open();
    if (!skeleton)
        return failed("open the divert program's BPF object", errno);
    std::unique_ptr<DivertProgram> program(new DivertProgram(skeleton));
    skeleton->rodata->mark = options.mark;
    skeleton->rodata->mask = options.mask;
    const bool intercepting = !options.intercepts.empty();
    skeleton->rodata->intercepting = intercepting;
    skeleton->rodata->may_look = verifier_trusts();
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
    if (intercepting) {
        auto link = attach_sk_lookup(skeleton->progs.syngate_offer);
        if (!link)
            return std::unexpected(link.error());
        program->link_ = std::move(*link);
    }
    return program;
}

int DivertProgram::tc_program(bool ethernet) const {
    return bpf_program__fd(ethernet ? skeleton_->progs.syngate_divert : skeleton_->progs.syngate_div_l3);
}

syngate_divert_verdicts DivertProgram::verdicts() const {
    return counted_on_all_cpus<syngate_divert_verdicts>(skeleton_->maps.divert_verdicts);
}

Result<void> DivertProgram::pin(const std::string& directory) {
    return pin_maps({skeleton_->maps.divert_verdicts, skeleton_->maps.intercept_listeners}, directory);
}

} // namespace syngate
