// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/tc_filters.hpp"

#include "base/libbpf_messages.hpp"

#include <arpa/inet.h>
#include <array>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <memory>

namespace syngate {
namespace {

int read_bpf_options(const nlattr* attribute, void* data) {
    if (mnl_attr_get_type(attribute) == TCA_BPF_ID)
        static_cast<TcFilter*>(data)->program_id = mnl_attr_get_u32(attribute);
    if (mnl_attr_get_type(attribute) == TCA_BPF_NAME)
        static_cast<TcFilter*>(data)->program_name = mnl_attr_get_str(attribute);
    return MNL_CB_OK;
}

int read_attribute(const nlattr* attribute, void* data) {
    auto* filter = static_cast<TcFilter*>(data);
    if (mnl_attr_get_type(attribute) == TCA_KIND)
        filter->kind = mnl_attr_get_str(attribute);
    if (mnl_attr_get_type(attribute) == TCA_OPTIONS && filter->kind == "bpf")
        mnl_attr_parse_nested(attribute, read_bpf_options, filter);
    return MNL_CB_OK;
}

int read_filter(const nlmsghdr* message, void* data) {
    const auto* tc = static_cast<const tcmsg*>(mnl_nlmsg_get_payload(message));
    TcFilter filter;
    filter.priority = tc->tcm_info >> 16;
    filter.protocol = ntohs(static_cast<std::uint16_t>(tc->tcm_info & 0xffff));
    filter.handle = tc->tcm_handle;
    mnl_attr_parse(message, sizeof(tcmsg), read_attribute, &filter);
    if (filter.handle != 0) // 0: the classifier itself, before its filters
        static_cast<std::vector<TcFilter>*>(data)->push_back(std::move(filter));
    return MNL_CB_OK;
}

Result<void> dump(std::uint32_t ifindex, std::uint32_t parent, std::vector<TcFilter>& filters) {
    const auto failed = [&] {
        return system_failure(fmt::format("cannot list the tc filters of interface {}", ifindex), errno);
    };
    const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket(
        mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC), mnl_socket_close);
    if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0)
        return failed();
    std::array<char, 32768> buffer{};
    nlmsghdr* message = mnl_nlmsg_put_header(buffer.data());
    message->nlmsg_type = RTM_GETTFILTER;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    message->nlmsg_seq = 1;
    auto* tc = static_cast<tcmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(tcmsg)));
    tc->tcm_family = AF_UNSPEC;
    tc->tcm_ifindex = static_cast<int>(ifindex);
    tc->tcm_parent = parent;
    if (mnl_socket_sendto(socket.get(), message, message->nlmsg_len) < 0)
        return failed();
    for (;;) {
        const ssize_t n = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
        if (n < 0)
            return failed();
        const int r = mnl_cb_run(buffer.data(), static_cast<std::size_t>(n), 1,
                                 mnl_socket_get_portid(socket.get()), read_filter, &filters);
        if (r == MNL_CB_STOP)
            return {};
        if (r < 0)
            return failed();
    }
}

} // namespace

Result<std::vector<TcFilter>> list_tc_filters(std::uint32_t ifindex) {
    std::vector<TcFilter> filters;
    for (const bool ingress : {true, false}) {
        const std::size_t before = filters.size();
        const std::uint32_t parent = TC_H_MAKE(TC_H_CLSACT, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
        if (const auto r = dump(ifindex, parent, filters); !r) {
            if (r.error().code == EINVAL || r.error().code == ENOENT || r.error().code == EOPNOTSUPP)
                continue; // no clsact there
            return std::unexpected(r.error());
        }
        for (std::size_t i = before; i < filters.size(); ++i)
            filters[i].ingress = ingress;
    }
    return filters;
}

Result<void> remove_tc_filter(std::uint32_t ifindex, std::uint32_t priority, std::uint32_t handle) {
    const LibbpfMessages messages;
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = BPF_TC_INGRESS;
    bpf_tc_opts options{};
    options.sz = sizeof(options);
    options.handle = handle;
    options.priority = priority;
    if (const int r = bpf_tc_detach(&hook, &options); r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL)
        return system_failure(
            fmt::format("cannot remove our tc filter (pref {} handle {:#x}) from interface {}", priority,
                        handle, ifindex),
            -r);
    return {};
}

Result<void> remove_clsact_if_empty(std::uint32_t ifindex) {
    const auto filters = list_tc_filters(ifindex);
    if (!filters)
        return std::unexpected(filters.error());
    if (!filters->empty())
        return {};
    const LibbpfMessages messages;
    bpf_tc_hook hook{};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
    if (const int r = bpf_tc_hook_destroy(&hook); r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL)
        return system_failure(fmt::format("cannot remove our clsact qdisc from interface {}", ifindex), -r);
    return {};
}

} // namespace syngate
