// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/fd.hpp"
#include "gate/attachment.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <linux/if_link.h>

namespace syngate {
namespace {

class XdpAttachment final : public Attachment {
public:
    XdpAttachment(int link, syngate_hook hook) : link_(link), hook_(hook) {}
    [[nodiscard]] syngate_hook hook() const override { return hook_; }

private:
    Fd link_;
    syngate_hook hook_;
};

int link_xdp(int program, std::uint32_t ifindex, std::uint32_t mode) {
    bpf_link_create_opts options{};
    options.sz = sizeof(options);
    options.flags = mode;
    return bpf_link_create(program, static_cast<int>(ifindex), BPF_XDP, &options);
}

std::uint32_t program_on(std::uint32_t ifindex) {
    std::uint32_t id = 0;
    bpf_xdp_query_id(static_cast<int>(ifindex), 0, &id);
    return id;
}

} // namespace

AttachResult attach_xdp(int program, std::uint32_t ifindex, const std::string& name) {
    syngate_hook hook = SYNGATE_HOOK_XDP_NATIVE;
    int link = link_xdp(program, ifindex, XDP_FLAGS_DRV_MODE);
    if (link < 0 && errno == EOPNOTSUPP) {
        hook = SYNGATE_HOOK_XDP_GENERIC;
        link = link_xdp(program, ifindex, XDP_FLAGS_SKB_MODE);
    }
    if (link >= 0)
        return std::make_unique<XdpAttachment>(link, hook);
    const int code = errno;
    if (code == EBUSY || code == EEXIST)
        return failure(
            Exit::busy,
            fmt::format("cannot attach by XDP to {}: XDP program {} is there already; use --hook tcx or "
                        "--hook tc, which share an interface",
                        name, program_on(ifindex)),
            code);
    return system_failure(fmt::format("cannot attach by XDP to {}; --hook tcx or --hook tc may do", name),
                          code, code == EPERM ? Exit::impossible : Exit::failed);
}

} // namespace syngate
