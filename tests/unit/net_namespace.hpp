// SPDX-License-Identifier: GPL-2.0-or-later
// Runs a test's body in a child process that has a fresh network namespace with lo up, so that nothing
// on the machine is touched and nothing is left behind.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate::test {

constexpr int no_namespace = 77; // the child's status when it is not allowed to make one

inline void set_up(const std::string& interface, bool up = true) {
    const Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    interface.copy(request.ifr_name, IFNAMSIZ - 1);
    ASSERT_EQ(::ioctl(fd.get(), SIOCGIFFLAGS, &request), 0) << interface;
    request.ifr_flags = static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    ASSERT_EQ(::ioctl(fd.get(), SIOCSIFFLAGS, &request), 0) << interface;
}

// The body's gtest failures are printed by the child and fail the caller. At most 30 s.
inline void in_namespace(const std::function<void()>& body) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        if (::unshare(CLONE_NEWNET) != 0)
            ::_exit(no_namespace);
        set_up("lo");
        if (!::testing::Test::HasFatalFailure())
            body();
        std::fflush(nullptr);
        ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    const Fd pid_fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    pollfd ended{pid_fd.get(), POLLIN, 0};
    const bool in_time = ::poll(&ended, 1, 30'000) == 1;
    if (!in_time)
        ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(in_time) << "the test's body ran for more than 30 s";
    if (WIFEXITED(status) && WEXITSTATUS(status) == no_namespace)
        GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace of its own";
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

// 127.0.0.1 or ::1, or any address with any = true.
inline sockaddr_storage loopback(int family, std::uint16_t port, bool any = false) {
    sockaddr_storage storage{};
    if (family == AF_INET) {
        auto& a = reinterpret_cast<sockaddr_in&>(storage);
        a.sin_family = AF_INET;
        a.sin_port = htons(port);
        a.sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
    } else {
        auto& a = reinterpret_cast<sockaddr_in6&>(storage);
        a.sin6_family = AF_INET6;
        a.sin6_port = htons(port);
        a.sin6_addr = any ? in6addr_any : in6addr_loopback;
    }
    return storage;
}

inline Fd listen_on(int family, std::uint16_t port, int backlog = 16, bool any = false) {
    Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6)
        ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    const auto address = loopback(family, port, any);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
        << std::strerror(errno);
    EXPECT_EQ(::listen(fd.get(), backlog), 0) << std::strerror(errno);
    return fd;
}

inline Fd connect_to(int family, std::uint16_t port) {
    Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = loopback(family, port);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
        << std::strerror(errno);
    return fd;
}

} // namespace syngate::test
