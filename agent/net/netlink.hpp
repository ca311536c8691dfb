// SPDX-License-Identifier: GPL-2.0-or-later
// Netlink requests and dumps over libmnl, with the kernel's own error texts.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <type_traits>
#include <vector>

namespace syngate {

// One request under construction: the header, then the family's own header, then attributes.
class NetlinkRequest {
public:
    explicit NetlinkRequest(std::uint16_t type, std::uint16_t flags = 0);
    NetlinkRequest(const NetlinkRequest&) = delete;
    NetlinkRequest& operator=(const NetlinkRequest&) = delete;

    // Appends the family's header, zeroed. To be called once, before any attribute.
    template <class T> T& head() {
        static_assert(std::is_trivially_copyable_v<T>);
        return *static_cast<T*>(mnl_nlmsg_put_extra_header(&header(), sizeof(T)));
    }
    // False: it does not fit, and nothing was appended.
    bool put(std::uint16_t type, const void* data, std::size_t length);
    bool put_u32(std::uint16_t type, std::uint32_t value) { return put(type, &value, sizeof value); }
    bool put_string(std::uint16_t type, const std::string& text) {
        return put(type, text.c_str(), text.size() + 1);
    }
    // Attributes put while the function runs are nested in one of this type.
    bool nest(std::uint16_t type, const std::function<bool()>& put_inner);

    nlmsghdr& header() { return *reinterpret_cast<nlmsghdr*>(buffer_.data()); }

private:
    alignas(nlmsghdr) std::array<char, 4096> buffer_{};
};

class Netlink {
public:
    // protocol: NETLINK_ROUTE, NETLINK_SOCK_DIAG, ... The socket belongs to the network namespace that
    // the calling thread is in now. Extended acknowledgements are on; for NETLINK_ROUTE strict checking
    // too, where the kernel has it (4.20), so that dumps are filtered by the kernel.
    static Result<Netlink> open(int protocol);

    using OnMessage = std::function<void(const nlmsghdr&)>;

    // Sends the request with NLM_F_ACK and waits for the kernel's answer; on_message gets what comes
    // before the acknowledgement. `what` begins the error message: "cannot add a route". The error's
    // code is the errno.
    Result<> run(NetlinkRequest& request, const std::string& what, const OnMessage& on_message = {});

    // Runs a dump. restart is called before each attempt and forgets what on_message collected: a dump
    // that the kernel marks as interrupted (NLM_F_DUMP_INTR) is asked again, dump_attempts times in all;
    // then the error's code is EINTR.
    Result<> dump(NetlinkRequest& request, const std::string& what, const std::function<void()>& restart,
                  const OnMessage& on_message);

    static constexpr int dump_attempts = 16;

private:
    Netlink() = default;
    Result<> send(NetlinkRequest& request, const std::string& what);
    // Until the acknowledgement or the end of the dump; interrupted is set, never cleared.
    Result<> receive(const std::string& what, const OnMessage& on_message, bool& interrupted);

    Fd fd_;
    std::uint32_t sequence_ = 0;
    std::vector<char> buffer_; // kept between calls: dumps are polled
};

// A socket that hears of the kernel's changes. Those that the classic BPF filter refuses are not even
// queued. Non-blocking; the caller polls fd().
class NetlinkListener {
public:
    // groups: RTNLGRP_...; filter: may be empty, and is in force before the first message.
    static Result<NetlinkListener> open(int protocol, const std::vector<unsigned>& groups,
                                        std::vector<sock_filter> filter = {});
    [[nodiscard]] int fd() const { return fd_.get(); }

    // Takes what is queued, up to a bound. Returns false if messages were lost (ENOBUFS): read everything
    // again.
    Result<bool> drain(const Netlink::OnMessage& on_message);

private:
    NetlinkListener() = default;
    Fd fd_;
    std::vector<char> buffer_;
};

// Calls on_attribute for each attribute in [begin, begin + length) that is whole.
template <class F> void for_each_attribute(const void* begin, std::size_t length, F&& on_attribute) {
    const auto* attribute = static_cast<const nlattr*>(begin);
    for (auto left = static_cast<int>(length); mnl_attr_ok(attribute, left);) {
        on_attribute(*attribute);
        left -= static_cast<int>(MNL_ALIGN(attribute->nla_len));
        attribute = mnl_attr_next(attribute);
    }
}

// The attribute's payload as T, or fallback if it is absent or too short.
template <class T> T netlink_value(const nlattr* attribute, T fallback = {}) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (!attribute || mnl_attr_get_payload_len(attribute) < sizeof(T))
        return fallback;
    T value;
    std::memcpy(&value, mnl_attr_get_payload(attribute), sizeof value);
    return value;
}

inline constexpr std::array<unsigned char, 2> ip_families{AF_INET, AF_INET6};

// IPv6 may be absent from the kernel: then it has nothing to dump.
inline bool family_is_absent(int family, const Error& error) {
    return family == AF_INET6 && (error.code == EOPNOTSUPP || error.code == EAFNOSUPPORT);
}

// The message's family header, or nullptr if the message is too short for it.
template <class T> const T* head_of(const nlmsghdr& message) {
    return mnl_nlmsg_get_payload_len(&message) < sizeof(T)
               ? nullptr
               : static_cast<const T*>(mnl_nlmsg_get_payload(&message));
}

template <std::size_t N> using NetlinkAttributes = std::array<const nlattr*, N>;

// Those behind the family header, of `head` bytes, by type; a type of N or more is left out.
template <std::size_t N> NetlinkAttributes<N> attributes_of(const nlmsghdr& message, std::size_t head) {
    NetlinkAttributes<N> table{};
    const std::size_t skip = MNL_ALIGN(head);
    const std::size_t length = mnl_nlmsg_get_payload_len(&message);
    if (length <= skip)
        return table;
    for_each_attribute(static_cast<const char*>(mnl_nlmsg_get_payload(&message)) + skip, length - skip,
                       [&](const nlattr& attribute) {
                           if (mnl_attr_get_type(&attribute) < N)
                               table[mnl_attr_get_type(&attribute)] = &attribute;
                       });
    return table;
}

} // namespace syngate
