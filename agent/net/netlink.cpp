// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/netlink.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <sys/socket.h>

namespace syngate {
namespace {

// The kernel fills dump messages up to the size of the last receive buffer, but not over 32 KiB
// (netlink_recvmsg); larger single answers exist, a link with many virtual functions being one.
constexpr std::size_t receive_size = std::size_t{64} * 1024;

constexpr int receive_queue = 1024 * 1024; // bytes; the default of 208 KiB holds about 250 changes

// Messages that one drain() takes: a stream of changes without end must not keep the loop from its
// other work. What is left wakes the caller again.
constexpr int drain_limit = 4096;

// errno 0 and text "" for success.
struct Answer {
    int code = 0;
    std::string text; // the kernel's own words, or empty
};

std::string extended_text(const char* begin, const nlmsghdr& message) {
    const char* const end = reinterpret_cast<const char*>(&message) + message.nlmsg_len;
    std::string text;
    for_each_attribute(begin, static_cast<std::size_t>(end - begin), [&](const nlattr& attribute) {
        if (mnl_attr_get_type(&attribute) != NLMSGERR_ATTR_MSG)
            return;
        text.assign(static_cast<const char*>(mnl_attr_get_payload(&attribute)),
                    mnl_attr_get_payload_len(&attribute));
        text.resize(text.find('\0') == text.npos ? text.size() : text.find('\0'));
    });
    return text;
}

// Of NLMSG_ERROR and NLMSG_DONE, which both begin with a negative errno.
Answer read_answer(const nlmsghdr& message) {
    const auto* payload = static_cast<const char*>(mnl_nlmsg_get_payload(&message));
    const std::size_t length = mnl_nlmsg_get_payload_len(&message);
    if (length < sizeof(int))
        return {message.nlmsg_type == NLMSG_DONE ? 0 : EBADMSG, {}};
    Answer answer;
    std::memcpy(&answer.code, payload, sizeof answer.code);
    answer.code = -answer.code;
    if (answer.code == 0 || !(message.nlmsg_flags & NLM_F_ACK_TLVS))
        return answer;
    std::size_t skip = sizeof(int);
    if (message.nlmsg_type == NLMSG_ERROR) {
        if (length < sizeof(nlmsgerr))
            return answer;
        skip = sizeof(nlmsgerr); // NETLINK_CAP_ACK: the request's payload is not echoed, but see below
        if (!(message.nlmsg_flags & NLM_F_CAPPED)) {
            const auto* error = reinterpret_cast<const nlmsgerr*>(payload);
            skip += MNL_ALIGN(error->msg.nlmsg_len) - sizeof(nlmsghdr);
        }
    }
    if (skip < length)
        answer.text = extended_text(payload + skip, message);
    return answer;
}

std::unexpected<Error> answer_failure(const std::string& what, const Answer& answer) {
    const Exit exit = answer.code == EPERM || answer.code == EOPNOTSUPP ? Exit::impossible : Exit::failed;
    std::string why = std::strerror(answer.code);
    if (!answer.text.empty())
        why = fmt::format("{} ({})", answer.text, why);
    if (answer.code == EPERM)
        why += "; it needs the capability CAP_NET_ADMIN (in a container --cap-add=NET_ADMIN)";
    return failure(exit, what + ": " + why, answer.code);
}

Result<Fd> open_socket(int protocol, int flags) {
    Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, protocol));
    if (!fd) {
        const bool absent = errno == EPROTONOSUPPORT || errno == EAFNOSUPPORT;
        return system_failure(fmt::format("cannot open a netlink socket of protocol {}{}", protocol,
                                          absent ? ", this kernel is built without it" : ""),
                              errno, absent ? Exit::impossible : Exit::failed);
    }
    return fd;
}

bool set_option(const Fd& fd, int level, int option, int value) {
    return ::setsockopt(fd.get(), level, option, &value, sizeof value) == 0;
}

} // namespace

NetlinkRequest::NetlinkRequest(std::uint16_t type, std::uint16_t flags) {
    nlmsghdr* message = mnl_nlmsg_put_header(buffer_.data());
    message->nlmsg_type = type;
    message->nlmsg_flags = flags;
}

bool NetlinkRequest::put(std::uint16_t type, const void* data, std::size_t length) {
    return mnl_attr_put_check(&header(), buffer_.size(), type, length, data);
}

bool NetlinkRequest::nest(std::uint16_t type, const std::function<bool()>& put_inner) {
    nlattr* outer = mnl_attr_nest_start_check(&header(), buffer_.size(), type);
    if (!outer)
        return false;
    if (!put_inner()) {
        mnl_attr_nest_cancel(&header(), outer);
        return false;
    }
    mnl_attr_nest_end(&header(), outer);
    return true;
}

Result<Netlink> Netlink::open(int protocol) {
    auto fd = open_socket(protocol, 0);
    if (!fd)
        return std::unexpected(fd.error());
    // Each of these only improves errors or speed: an older kernel works without.
    set_option(*fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    set_option(*fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    if (protocol == NETLINK_ROUTE)
        set_option(*fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    Netlink netlink;
    netlink.fd_ = std::move(*fd);
    netlink.buffer_.resize(receive_size);
    return netlink;
}

Result<> Netlink::send(NetlinkRequest& request, const std::string& what) {
    nlmsghdr& message = request.header();
    message.nlmsg_seq = ++sequence_;
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    for (;;) {
        if (::sendto(fd_.get(), &message, message.nlmsg_len, 0, reinterpret_cast<sockaddr*>(&kernel),
                     sizeof kernel) >= 0)
            return {};
        if (errno != EINTR)
            return system_failure(what + ": cannot send the netlink request", errno);
    }
}

Result<> Netlink::receive(const std::string& what, const OnMessage& on_message, bool& interrupted) {
    for (;;) {
        sockaddr_nl sender{};
        iovec part{buffer_.data(), buffer_.size()};
        msghdr head{};
        head.msg_name = &sender;
        head.msg_namelen = sizeof sender;
        head.msg_iov = &part;
        head.msg_iovlen = 1;
        const ssize_t got = ::recvmsg(fd_.get(), &head, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return system_failure(what + ": cannot receive the netlink answer", errno);
        if (sender.nl_pid != 0)
            continue; // not from the kernel
        if (head.msg_flags & MSG_TRUNC)
            return failure(Exit::failed,
                           fmt::format("{}: the kernel's answer is longer than {} bytes", what, receive_size),
                           EMSGSIZE);
        int left = static_cast<int>(got);
        for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
             mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
            if (message->nlmsg_seq != sequence_)
                continue; // of an earlier request that failed half-way
            if (message->nlmsg_flags & NLM_F_DUMP_INTR)
                interrupted = true;
            if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE) {
                const Answer answer = read_answer(*message);
                if (answer.code != 0)
                    return answer_failure(what, answer);
                return {};
            }
            if (message->nlmsg_type >= NLMSG_MIN_TYPE && on_message)
                on_message(*message);
        }
    }
}

Result<> Netlink::run(NetlinkRequest& request, const std::string& what, const OnMessage& on_message) {
    request.header().nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    if (auto sent = send(request, what); !sent)
        return sent;
    bool interrupted = false; // has no meaning outside dumps
    return receive(what, on_message, interrupted);
}

Result<> Netlink::dump(NetlinkRequest& request, const std::string& what, const std::function<void()>& restart,
                       const OnMessage& on_message) {
    request.header().nlmsg_flags |= NLM_F_REQUEST | NLM_F_DUMP;
    for (int attempt = 0; attempt < dump_attempts; ++attempt) {
        restart();
        if (auto sent = send(request, what); !sent)
            return sent;
        bool interrupted = false;
        if (auto received = receive(what, on_message, interrupted); !received)
            return received;
        if (!interrupted)
            return {};
    }
    return failure(Exit::failed,
                   fmt::format("{}: it changed during each of {} readings; try again when it has settled",
                               what, dump_attempts),
                   EINTR);
}

Result<NetlinkListener> NetlinkListener::open(int protocol, const std::vector<unsigned>& groups,
                                              std::vector<sock_filter> filter) {
    auto fd = open_socket(protocol, SOCK_NONBLOCK);
    if (!fd)
        return std::unexpected(fd.error());
    if (!filter.empty()) {
        const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
        if (::setsockopt(fd->get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
            return system_failure("cannot attach a filter to a netlink socket", errno);
    }
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN; a loss is noticed and made good anyway.
    if (!set_option(*fd, SOL_SOCKET, SO_RCVBUFFORCE, receive_queue))
        set_option(*fd, SOL_SOCKET, SO_RCVBUF, receive_queue);
    sockaddr_nl self{};
    self.nl_family = AF_NETLINK;
    if (::bind(fd->get(), reinterpret_cast<sockaddr*>(&self), sizeof self) < 0)
        return system_failure("cannot bind a netlink socket", errno);
    for (const unsigned group : groups)
        if (!set_option(*fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, static_cast<int>(group)))
            return system_failure(fmt::format("cannot join netlink group {}", group), errno);
    NetlinkListener listener;
    listener.fd_ = std::move(*fd);
    listener.buffer_.resize(receive_size);
    return listener;
}

Result<bool> NetlinkListener::drain(const Netlink::OnMessage& on_message) {
    bool complete = true;
    for (int taken = 0; taken < drain_limit; ++taken) {
        const ssize_t got = ::recv(fd_.get(), buffer_.data(), buffer_.size(), MSG_TRUNC);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return complete;
        if (got < 0 && errno != ENOBUFS)
            return system_failure("cannot receive netlink notifications", errno);
        if (got < 0 || static_cast<std::size_t>(got) > buffer_.size()) {
            complete = false;
            continue;
        }
        int left = static_cast<int>(got);
        for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer_.data());
             mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
            on_message(*message);
    }
    return complete;
}

} // namespace syngate
