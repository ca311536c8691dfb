// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/repaired.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <utility>

namespace syngate::prog {

namespace {

void must(int result, const char* what) {
    if (result != 0)
        throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(errno)));
}

} // namespace

SocketAddress::SocketAddress(const std::string& text, std::uint16_t port) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    if (::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        length = sizeof v4;
    } else if (::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1) {
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        length = sizeof v6;
    } else {
        throw std::runtime_error(text + " is no address");
    }
}

void set_transparent(const Fd& fd, bool ipv6, int on) {
    must(::setsockopt(fd.get(), ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_TRANSPARENT : IP_TRANSPARENT,
                      &on, sizeof on),
         "cannot make a socket transparent");
}

Fd established(const SocketAddress& own, const SocketAddress& peer, bool transparent) {
    const bool ipv6 = own.storage.ss_family == AF_INET6;
    Fd fd(::socket(own.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    set_transparent(fd, ipv6, 1);
    const int on = 1;
    must(::setsockopt(fd.get(), IPPROTO_TCP, TCP_REPAIR, &on, sizeof on), "cannot repair a socket");
    // As Packet::tcp() has them: its acknowledgements say nothing new.
    for (const auto& [queue, next] :
         {std::pair(int{TCP_SEND_QUEUE}, 0U), std::pair(int{TCP_RECV_QUEUE}, 0x01020000U)}) {
        must(::setsockopt(fd.get(), IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue),
             "cannot choose a queue");
        must(::setsockopt(fd.get(), IPPROTO_TCP, TCP_QUEUE_SEQ, &next, sizeof next),
             "cannot set a sequence number");
    }
    must(::bind(fd.get(), own.get(), own.length), "cannot bind a socket");
    must(::connect(fd.get(), peer.get(), peer.length), "cannot connect a socket in repair");
    if (!transparent)
        set_transparent(fd, ipv6, 0);
    return fd;
}

} // namespace syngate::prog
