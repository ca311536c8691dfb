// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/socket_owner.hpp"

#include <array>
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <memory>
#include <sys/socket.h>

namespace syngate {
namespace {

constexpr unsigned listening = 10; // TCP_LISTEN, which UNIX sockets borrow
constexpr unsigned sequence = 1;

struct Search {
    std::string_view name;
    std::optional<uid_t> uid;
};

struct Attributes {
    std::string_view name;
    std::optional<uid_t> uid;
};

int take_attribute(const nlattr* attribute, void* data) {
    auto& taken = *static_cast<Attributes*>(data);
    if (mnl_attr_get_type(attribute) == UNIX_DIAG_NAME)
        taken.name = {static_cast<const char*>(mnl_attr_get_payload(attribute)),
                      mnl_attr_get_payload_len(attribute)};
    if (mnl_attr_get_type(attribute) == UNIX_DIAG_UID && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
        taken.uid = mnl_attr_get_u32(attribute);
    return MNL_CB_OK;
}

int look(const nlmsghdr* header, void* data) {
    auto& search = *static_cast<Search*>(data);
    const auto* message = static_cast<const unix_diag_msg*>(mnl_nlmsg_get_payload(header));
    Attributes found;
    if (message->udiag_type != SOCK_SEQPACKET ||
        mnl_attr_parse(header, sizeof(*message), take_attribute, &found) < 0)
        return MNL_CB_OK;
    if (found.name.starts_with('\0') && found.name.substr(1) == search.name)
        search.uid = found.uid;
    return MNL_CB_OK;
}

} // namespace

std::optional<uid_t> listener_owner(std::string_view abstract_name) {
    const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket(
        mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC), mnl_socket_close);
    if (!socket)
        return {};
    alignas(nlmsghdr) std::array<char, 32 * 1024> buffer{};
    nlmsghdr* header = mnl_nlmsg_put_header(buffer.data());
    header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    header->nlmsg_seq = sequence;
    auto* request = static_cast<unix_diag_req*>(mnl_nlmsg_put_extra_header(header, sizeof(unix_diag_req)));
    request->sdiag_family = AF_UNIX;
    request->udiag_states = 1U << listening;
    request->udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_UID;
    if (mnl_socket_sendto(socket.get(), header, header->nlmsg_len) < 0)
        return {};
    Search search{.name = abstract_name, .uid = {}};
    for (int more = MNL_CB_OK; more > MNL_CB_STOP;) {
        const ssize_t size = mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
        if (size < 0)
            return {};
        more = mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), sequence,
                          mnl_socket_get_portid(socket.get()), look, &search);
    }
    return search.uid;
}

} // namespace syngate
