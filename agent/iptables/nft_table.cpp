// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/nft_table.hpp"

#include "base/fd.hpp"
#include "iptables/rules.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

namespace syngate {
namespace {

constexpr std::uint16_t acknowledged = NLM_F_REQUEST | NLM_F_ACK;

// Messages one after the other in one buffer: what changes nf_tables must come in a batch.
class Messages {
public:
    nlmsghdr* add(int type, std::uint16_t flags, std::uint8_t family, std::uint16_t resource = 0) {
        auto* message = mnl_nlmsg_put_header(buffer_.data() + used_);
        message->nlmsg_type = static_cast<std::uint16_t>(type);
        message->nlmsg_flags = flags;
        message->nlmsg_seq = ++sequence_;
        auto* head = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
        head->nfgen_family = family;
        head->version = NFNETLINK_V0;
        head->res_id = htons(resource);
        return message;
    }
    void end(const nlmsghdr* message) { used_ += MNL_ALIGN(message->nlmsg_len); }

    // The errno of the acknowledgement, 0 for success.
    [[nodiscard]] int send() const {
        const Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
        const timeval patience{.tv_sec = 5, .tv_usec = 0};
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (!fd || ::send(fd.get(), buffer_.data(), used_, 0) < 0)
            return errno;
        alignas(nlmsghdr) std::array<char, 8192> answer{};
        for (;;) {
            const ssize_t size = ::recv(fd.get(), answer.data(), answer.size(), 0);
            if (size < 0)
                return errno;
            auto left = static_cast<int>(size);
            for (const auto* one = reinterpret_cast<const nlmsghdr*>(answer.data()); mnl_nlmsg_ok(one, left);
                 one = mnl_nlmsg_next(one, &left))
                if (one->nlmsg_type == NLMSG_ERROR)
                    return -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(one))->error;
        }
    }

private:
    alignas(nlmsghdr) std::array<char, 4096> buffer_{};
    std::size_t used_ = 0;
    std::uint32_t sequence_ = 0;
};

std::uint8_t family_of(bool ipv6) {
    return ipv6 ? NFPROTO_IPV6 : NFPROTO_IPV4;
}

int nft_type(int message) {
    return (NFNL_SUBSYS_NFTABLES << 8) | message;
}

int ask(bool ipv6, int type, int table_attribute, int chain_attribute, const std::string& chain) {
    Messages messages;
    nlmsghdr* message = messages.add(nft_type(type), acknowledged, family_of(ipv6));
    mnl_attr_put_strz(message, static_cast<std::uint16_t>(table_attribute), rules::table);
    if (!chain.empty())
        mnl_attr_put_strz(message, static_cast<std::uint16_t>(chain_attribute), chain.c_str());
    messages.end(message);
    return messages.send();
}

void remove(bool ipv6, int type, int table_attribute, int chain_attribute, const std::string& chain) {
    Messages messages;
    messages.end(messages.add(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    // NLM_F_NONREC: EBUSY if something is in it.
    nlmsghdr* message = messages.add(nft_type(type), acknowledged | NLM_F_NONREC, family_of(ipv6));
    mnl_attr_put_strz(message, static_cast<std::uint16_t>(table_attribute), rules::table);
    if (!chain.empty())
        mnl_attr_put_strz(message, static_cast<std::uint16_t>(chain_attribute), chain.c_str());
    messages.end(message);
    messages.end(messages.add(NFNL_MSG_BATCH_END, NLM_F_REQUEST, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    (void)messages.send();
}

} // namespace

bool nft_table_exists(bool ipv6) {
    return ask(ipv6, NFT_MSG_GETTABLE, NFTA_TABLE_NAME, 0, "") != ENOENT;
}

bool nft_chain_exists(bool ipv6, const std::string& chain) {
    return ask(ipv6, NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, chain) != ENOENT;
}

void remove_nft_chain(bool ipv6, const std::string& chain) {
    remove(ipv6, NFT_MSG_DELCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, chain);
}

void remove_nft_table(bool ipv6) {
    remove(ipv6, NFT_MSG_DELTABLE, NFTA_TABLE_NAME, 0, "");
}

} // namespace syngate
