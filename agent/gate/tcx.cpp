// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/fd.hpp"
#include "gate/attachment.hpp"

#include <bpf/bpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <limits>

namespace syngate {
namespace {

// linux/bpf.h of 6.6, which Debian 12's headers and libbpf 1.1 do not have yet.
constexpr auto tcx_ingress = static_cast<bpf_attach_type>(46); // BPF_TCX_INGRESS
constexpr std::uint32_t before = 1U << 3;                      // BPF_F_BEFORE, of nothing: first

int link_tcx(int program, int ifindex) {
    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.flags = before;
    return bpf_link_create(program, ifindex, tcx_ingress, &options);
}

class TcxAttachment final : public Attachment {
public:
    explicit TcxAttachment(int link) : link_(link) {}
    [[nodiscard]] syngate_hook hook() const override { return SYNGATE_HOOK_TCX; }

private:
    Fd link_;
};

} // namespace

bool tcx_supported(int program) {
    const Fd link(link_tcx(program, std::numeric_limits<int>::max()));
    return !link && errno == ENODEV;
}

AttachResult attach_tcx(int program, std::uint32_t ifindex, const std::string& name) {
    const int link = link_tcx(program, static_cast<int>(ifindex));
    if (link < 0) {
        const int code = errno;
        if (code == EINVAL && !tcx_supported(program))
            return failure(
                Exit::impossible,
                fmt::format("cannot attach by TCX to {}: this kernel has no TCX (Linux 6.6); use --hook tc",
                            name),
                code);
        return system_failure(fmt::format("cannot attach by TCX to {}", name), code,
                              code == EPERM ? Exit::impossible : Exit::failed);
    }
    return std::make_unique<TcxAttachment>(link);
}

} // namespace syngate
