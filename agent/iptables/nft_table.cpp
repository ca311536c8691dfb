// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/nft_table.hpp"

#include "base/fd.hpp"

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

    // The first errno of as many acknowledgements, 0 for success. GETs are answered before theirs.
    [[nodiscard]] int send(std::size_t acknowledgements) const {
        const Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
        const timeval patience{.tv_sec = 5, .tv_usec = 0};
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (!fd || ::send(fd.get(), buffer_.data(), used_, 0) < 0)
            return errno;
        alignas(nlmsghdr) std::array<char, 8192> answer{};
        while (acknowledgements > 0) {
            const ssize_t size = ::recv(fd.get(), answer.data(), answer.size(), 0);
            if (size < 0)
                return errno;
            auto left = static_cast<int>(size);
            for (const auto* one = reinterpret_cast<const nlmsghdr*>(answer.data()); mnl_nlmsg_ok(one, left);
                 one = mnl_nlmsg_next(one, &left)) {
                if (one->nlmsg_type != NLMSG_ERROR)
                    continue;
                if (const int error = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(one))->error)
                    return -error;
                --acknowledgements;
            }
        }
        return 0;
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

void put_name(nlmsghdr* message, int attribute, const std::string& name) {
    mnl_attr_put_strz(message, static_cast<std::uint16_t>(attribute), name.c_str());
}

int ask(bool ipv6, int type, int table_attribute, const std::string& table, const std::string& chain) {
    Messages messages;
    nlmsghdr* message = messages.add(nft_type(type), acknowledged, family_of(ipv6));
    put_name(message, table_attribute, table);
    if (!chain.empty())
        put_name(message, NFTA_CHAIN_NAME, chain);
    messages.end(message);
    return messages.send(1);
}

} // namespace

bool nft_table_exists(bool ipv6, const std::string& table) {
    return ask(ipv6, NFT_MSG_GETTABLE, NFTA_TABLE_NAME, table, "") != ENOENT;
}

bool nft_chain_exists(bool ipv6, const std::string& table, const std::string& chain) {
    return ask(ipv6, NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE, table, chain) != ENOENT;
}

int remove_nft(bool ipv6, const std::string& table, const std::vector<std::string>& chains, bool table_too) {
    Messages messages;
    messages.end(messages.add(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    // NLM_F_NONREC: EBUSY if something is in it.
    for (const std::string& chain : chains) {
        nlmsghdr* message =
            messages.add(nft_type(NFT_MSG_DELCHAIN), acknowledged | NLM_F_NONREC, family_of(ipv6));
        put_name(message, NFTA_CHAIN_TABLE, table);
        put_name(message, NFTA_CHAIN_NAME, chain);
        messages.end(message);
    }
    if (table_too) {
        nlmsghdr* message =
            messages.add(nft_type(NFT_MSG_DELTABLE), acknowledged | NLM_F_NONREC, family_of(ipv6));
        put_name(message, NFTA_TABLE_NAME, table);
        messages.end(message);
    }
    messages.end(messages.add(NFNL_MSG_BATCH_END, NLM_F_REQUEST, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    return messages.send(chains.size() + (table_too ? 1 : 0));
}

} // namespace syngate
