// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/unix_socket.hpp"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

namespace syngate {

std::string_view UnixAddress::abstract_name() const {
    constexpr std::size_t start = offsetof(sockaddr_un, sun_path) + 1;
    if (length <= start || address.sun_family != AF_UNIX || address.sun_path[0] != '\0')
        return {};
    return {address.sun_path + 1, length - start};
}

Result<UnixAddress> path_address(const std::string& path) {
    UnixAddress result;
    result.address.sun_family = AF_UNIX;
    constexpr std::size_t longest = sizeof(result.address.sun_path) - 1;
    if (path.empty())
        return failure(Exit::usage, "the control socket's path is empty: name a file");
    if (path.size() > longest || path.find('\0') != path.npos)
        return failure(Exit::usage,
                       fmt::format("the control socket's path '{}' has {} bytes, a UNIX socket's has at "
                                   "most {}: choose a shorter path",
                                   path, path.size(), longest),
                       ENAMETOOLONG);
    path.copy(result.address.sun_path, longest);
    result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    return result;
}

UnixAddress abstract_address(std::string_view name) {
    UnixAddress result;
    result.address.sun_family = AF_UNIX;
    const std::size_t size = name.copy(result.address.sun_path + 1, sizeof(result.address.sun_path) - 1);
    result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
    return result;
}

std::optional<uid_t> peer_uid(int fd) {
    ucred credentials{};
    socklen_t length = sizeof(credentials);
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0)
        return {};
    return credentials.uid;
}

bool is_trusted(uid_t uid) {
    return uid == 0 || uid == ::geteuid();
}

int milliseconds_until(Time deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
}

bool wait_for(int fd, short events, Time deadline) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    for (;;) {
        const int ready = ::poll(&entry, 1, milliseconds_until(deadline));
        if (ready > 0)
            return true;
        if ((ready == 0 && Clock::now() >= deadline) || (ready < 0 && errno != EINTR))
            return false;
    }
}

namespace {

Fd open_spare() {
    return Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

} // namespace

Acceptor::Acceptor(Fd listener) : listener_(std::move(listener)), spare_(open_spare()) {}

Acceptor::Accepted Acceptor::accept() {
    if (!spare_)
        spare_ = open_spare();
    Accepted result;
    const auto try_once = [&] {
        result.from.length = sizeof(result.from.address);
        result.fd = Fd(::accept4(fd(), reinterpret_cast<sockaddr*>(&result.from.address), &result.from.length,
                                 SOCK_CLOEXEC | SOCK_NONBLOCK));
    };
    try_once();
    if (!result.fd && (errno == EMFILE || errno == ENFILE) && spare_) {
        spare_.reset();
        result.scarce = true;
        try_once();
    }
    return result;
}

} // namespace syngate
