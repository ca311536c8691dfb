// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/loopback_queue.hpp"

#include "base/fd.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <system_error>
#include <thread>

namespace syngate {
namespace {

constexpr timeval echo_patience{.tv_sec = 1, .tv_usec = 0};

// Connected to itself over lo.
Fd echo_socket() {
    Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in self{};
    self.sin_family = AF_INET;
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof self;
    auto* address = reinterpret_cast<sockaddr*>(&self);
    if (!fd || ::bind(fd.get(), address, size) < 0 || ::getsockname(fd.get(), address, &size) < 0 ||
        ::connect(fd.get(), address, size) < 0 ||
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &echo_patience, sizeof echo_patience) < 0)
        return {};
    return fd;
}

// On each CPU of the calling thread.
void echo_on_each_cpu() {
    const Fd fd = echo_socket();
    cpu_set_t ours;
    if (!fd || ::sched_getaffinity(0, sizeof ours, &ours) < 0) {
        spdlog::debug("packets behind lo are not waited for: {}", std::strerror(errno));
        return;
    }
    bool arrives = true;
    for (int cpu = 0; cpu < CPU_SETSIZE && arrives; ++cpu) {
        if (!CPU_ISSET(cpu, &ours))
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        char byte = 0;
        arrives = ::sched_setaffinity(0, sizeof one, &one) == 0 && ::send(fd.get(), &byte, 1, 0) == 1 &&
                  ::recv(fd.get(), &byte, 1, 0) == 1;
    }
    if (!arrives)
        spdlog::debug("a datagram over lo did not arrive: {}", std::strerror(errno));
}

} // namespace

// In a thread of its own: which CPUs this one may use later, and whatever it starts, is not for it to fix.
void wait_for_packets_behind_loopback() {
    try {
        std::thread(echo_on_each_cpu).join();
    } catch (const std::system_error& error) {
        spdlog::debug("packets behind lo are not waited for: {}", error.what());
    }
}

} // namespace syngate
