// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/packet_queue.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <sys/socket.h>
#include <utility>

namespace syngate {
namespace {

// A packet as drivers allocate it (about half a page at most), with the queue's entry.
constexpr std::size_t bytes_per_syn = 2048;
constexpr std::size_t room_min = 64;
constexpr std::size_t room_max = 65536;
constexpr std::size_t bytes_per_message = 1024; // as the socket's buffer counts them
constexpr unsigned first_number = 32768;        // below are the ones that people write down
constexpr int numbers_to_try = 256;

using Buffer = std::array<char, 8192>;

} // namespace

Result<std::unique_ptr<PacketQueue>> PacketQueue::open(std::uint64_t seed, std::size_t memory) {
    std::unique_ptr<PacketQueue> queue(new PacketQueue);
    queue->fd_ = Fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    sockaddr_nl name{};
    name.nl_family = AF_NETLINK;
    socklen_t size = sizeof(name);
    if (!queue->fd_ || ::bind(queue->fd_.get(), reinterpret_cast<sockaddr*>(&name), size) != 0 ||
        ::getsockname(queue->fd_.get(), reinterpret_cast<sockaddr*>(&name), &size) != 0)
        return system_failure("cannot open a netlink socket for NFQUEUE", errno, Exit::impossible);
    queue->port_id_ = name.nl_pid;
    queue->room_ = std::clamp(memory / bytes_per_syn, room_min, room_max);
    for (int i = 0; i < numbers_to_try; ++i) {
        const auto number = static_cast<std::uint16_t>(first_number + (seed + static_cast<std::uint64_t>(i)) %
                                                                          (65536 - first_number));
        const auto taken = queue->try_number(number);
        if (!taken)
            return std::unexpected(taken.error());
        if (!*taken)
            continue;
        if (const auto r = queue->configure(); !r)
            return std::unexpected(r.error());
        return queue;
    }
    return failure(Exit::impossible, fmt::format("of {} queues for NFQUEUE none is free, or CAP_NET_ADMIN is "
                                                 "missing (in a container --cap-add=NET_ADMIN)",
                                                 numbers_to_try));
}

Result<bool> PacketQueue::try_number(std::uint16_t number) {
    Buffer buffer{};
    nlmsghdr* message = nfq_nlmsg_put(buffer.data(), NFQNL_MSG_CONFIG, number);
    nfq_nlmsg_cfg_put_cmd(message, AF_UNSPEC, NFQNL_CFG_CMD_BIND);
    const auto r = transact(*message);
    if (!r && (r.error().code == EBUSY || r.error().code == EPERM)) // EPERM: another socket's
        return false;
    if (!r)
        return failure(Exit::impossible,
                       fmt::format("cannot have a queue for NFQUEUE: {}", r.error().message), r.error().code);
    number_ = number;
    return true;
}

Result<void> PacketQueue::configure() {
    Buffer buffer{};
    nlmsghdr* message = nfq_nlmsg_put(buffer.data(), NFQNL_MSG_CONFIG, number_);
    nfq_nlmsg_cfg_put_params(message, NFQNL_COPY_META, 0);
    nfq_nlmsg_cfg_put_qmaxlen(message, static_cast<std::uint32_t>(room_));
    if (const auto r = transact(*message); !r)
        return failure(Exit::impossible,
                       fmt::format("cannot set up queue {} for NFQUEUE: {}", number_, r.error().message),
                       r.error().code);
    // Every message of a full queue must find room; beyond this system's limit only with CAP_NET_ADMIN.
    const int wanted = static_cast<int>(std::max<std::size_t>(room_ * bytes_per_message, 256U << 10));
    if (::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof wanted) != 0)
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &wanted, sizeof wanted);
    const int on = 1; // what does not fit is counted by the kernel
    ::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on);
    return {};
}

// Only before a packet can come.
Result<void> PacketQueue::transact(nlmsghdr& message) const {
    message.nlmsg_flags |= NLM_F_ACK;
    if (::send(fd_.get(), &message, message.nlmsg_len, 0) < 0)
        return system_failure("cannot ask the kernel", errno);
    alignas(nlmsghdr) Buffer answer{};
    const ssize_t size = ::recv(fd_.get(), answer.data(), answer.size(), 0);
    if (size < 0)
        return system_failure("the kernel does not answer", errno);
    if (mnl_cb_run(answer.data(), static_cast<std::size_t>(size), 0, port_id_, nullptr, nullptr) < 0)
        return system_failure("the kernel says no", errno);
    return {};
}

std::uint64_t PacketQueue::take_note() {
    alignas(nlmsghdr) Buffer buffer;
    std::uint64_t noted = 0;
    for (;;) {
        const ssize_t size = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0)
            break;
        auto left = static_cast<int>(size);
        for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
             mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
            std::array<nlattr*, NFQA_MAX + 1> attributes{};
            if (message->nlmsg_type != ((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET) ||
                nfq_nlmsg_parse(message, attributes.data()) < 0 || !attributes[NFQA_PACKET_HDR])
                continue;
            nfqnl_msg_packet_hdr head{};
            std::memcpy(&head, mnl_attr_get_payload(attributes[NFQA_PACKET_HDR]), sizeof head);
            ids_.push_back(ntohl(head.packet_id));
            ++noted;
        }
    }
    return noted;
}

std::uint64_t PacketQueue::judge(Verdict verdict, std::uint64_t most) {
    const auto count = static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(most, ids_.size()));
    if (count == 0)
        return 0;
    Buffer buffer{};
    nlmsghdr* message = nfq_nlmsg_put(buffer.data(), NFQNL_MSG_VERDICT_BATCH, number_);
    // For this one and all before it.
    nfq_nlmsg_verdict_put(message, static_cast<int>(ids_[static_cast<std::size_t>(count) - 1]),
                          verdict == Verdict::again ? NF_REPEAT : NF_DROP);
    if (::send(fd_.get(), message, message->nlmsg_len, 0) < 0)
        return 0;
    ids_.erase(ids_.begin(), ids_.begin() + count);
    return static_cast<std::uint64_t>(count);
}

// Columns: queue number, port id, length, copy mode, copy range, dropped when full, dropped for want of room
// for the message, ...
std::uint64_t PacketQueue::overflown() const {
    std::ifstream file("/proc/net/netfilter/nfnetlink_queue");
    for (std::string line; std::getline(file, line);) {
        unsigned number = 0;
        unsigned long full = 0;
        unsigned long unsent = 0;
        if (std::sscanf(line.c_str(), "%u %*u %*u %*u %*u %lu %lu", &number, &full, &unsent) == 3 &&
            number == number_)
            return full + unsent;
    }
    return 0;
}

} // namespace syngate
