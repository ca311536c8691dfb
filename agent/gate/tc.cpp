// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/libbpf_messages.hpp"
#include "gate/attachment.hpp"
#include "gate/filter_handle.hpp"
#include "gate/tc_filters.hpp"

#include <algorithm>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <linux/if_ether.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

bpf_tc_hook ingress_of(std::uint32_t ifindex) {
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = BPF_TC_INGRESS;
    return hook;
}

class TcAttachment final : public Attachment {
public:
    TcAttachment(std::uint32_t ifindex, std::uint32_t priority, std::uint32_t handle, bool made_qdisc)
        : ifindex_(ifindex), priority_(priority), handle_(handle), made_qdisc_(made_qdisc) {}
    TcAttachment(const TcAttachment&) = delete;
    TcAttachment& operator=(const TcAttachment&) = delete;
    ~TcAttachment() override {
        if (const auto r = remove_tc_filter(ifindex_, priority_, handle_); !r)
            spdlog::error("{}", r.error().message);
    }
    [[nodiscard]] syngate_hook hook() const override { return SYNGATE_HOOK_TC; }
    [[nodiscard]] bool made_qdisc() const override { return made_qdisc_; }

private:
    std::uint32_t ifindex_;
    std::uint32_t priority_;
    std::uint32_t handle_;
    bool made_qdisc_;
};

// The first preference whose filters are none, or bpf filters for every frame: one preference
// holds one kind and protocol. A new bpf filter stands before the older ones of its preference.
std::uint32_t free_priority(const std::vector<TcFilter>& filters) {
    for (std::uint32_t priority = 1;; ++priority) {
        const bool taken = std::ranges::any_of(filters, [&](const TcFilter& f) {
            return f.ingress && f.priority == priority && (f.kind != "bpf" || f.protocol != ETH_P_ALL);
        });
        if (!taken)
            return priority;
    }
}

} // namespace

AttachResult attach_tc(int program, TcRole role, std::uint32_t ifindex, const std::string& name,
                       std::uint64_t owner_id) {
    const LibbpfMessages messages;
    bpf_tc_hook hook = ingress_of(ifindex);
    const int made = bpf_tc_hook_create(&hook);
    if (made < 0 && made != -EEXIST)
        return failure(made == -EPERM || made == -EOPNOTSUPP || made == -ENOENT ? Exit::impossible
                                                                                : Exit::failed,
                       fmt::format("cannot make the clsact qdisc on {}: {}; {}", name, std::strerror(-made),
                                   messages.text()),
                       -made);
    bool made_qdisc = made == 0;
    const auto undo = [&](Error error) -> AttachResult {
        if (made_qdisc)
            (void)remove_clsact_if_empty(ifindex);
        return std::unexpected(std::move(error));
    };

    const auto filters = list_tc_filters(ifindex);
    if (!filters)
        return undo(filters.error());
    made_qdisc = made_qdisc || tells_of_made_qdisc(*filters);
    bpf_tc_opts options{};
    options.sz = sizeof(options);
    options.prog_fd = program;
    options.handle = filter_handle(owner_id, role, made_qdisc);
    options.priority = free_priority(*filters);
    if (const int r = bpf_tc_attach(&hook, &options); r < 0)
        return undo({Exit::failed,
                     fmt::format("cannot add a bpf filter (pref {}) to {}: {}; {}", options.priority, name,
                                 std::strerror(-r), messages.text()),
                     -r});
    if (options.priority > 1)
        spdlog::warn("{}: {} filter(s) of others come before the gate's, and may keep SYNs from it", name,
                     filters->size());
    return std::make_unique<TcAttachment>(ifindex, options.priority, options.handle, made_qdisc);
}

} // namespace syngate
