// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/backing_ports.hpp"

#include "base/fd.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

namespace syngate {

namespace {

// Of either family, and by nobody's connection either.
bool is_free(std::uint16_t port) {
    for (const int family : {AF_INET, AF_INET6}) {
        const Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (!fd)
            continue; // a kernel without IPv6
        const int only = 1;
        if (family == AF_INET6)
            setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
        sockaddr_storage address{};
        address.ss_family = static_cast<sa_family_t>(family);
        // sin_port and sin6_port are in the same place.
        reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(port);
        const socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
        if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) < 0)
            return false;
    }
    return true;
}

} // namespace

// Outside of the range from which outgoing connections take theirs: there a port may be taken at any time.
Result<PortSet> pick_backing_ports() {
    int low = 32768, high = 60999; // the kernel's defaults
    std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> low >> high;
    std::vector<std::uint16_t> candidates;
    for (int port = 1024; port <= 65535; ++port)
        if (port < low || port > high)
            candidates.push_back(static_cast<std::uint16_t>(port));
    PortSet ports;
    // From the top, and for each agent from elsewhere.
    std::ranges::reverse(candidates);
    if (!candidates.empty())
        std::ranges::rotate(candidates,
                            candidates.begin() +
                                getpid() % std::min<int>(2000, static_cast<int>(candidates.size())));
    for (const std::uint16_t port : candidates) {
        if (is_free(port))
            ports.insert(port);
        if (ports.size() == 2)
            return ports;
    }
    return failure(Exit::failed, "cannot find two free ports for the server outside of ip_local_port_range; "
                                 "--flip-ports names them");
}

Argv with_backing_port(Argv argv, std::uint16_t port) {
    const std::string mark = fmt::format("{{{}}}", backing_port_name);
    const std::string number = std::to_string(port);
    for (std::string& word : argv)
        for (auto at = word.find(mark); at != word.npos; at = word.find(mark, at + number.size()))
            word.replace(at, mark.size(), number);
    return argv;
}

} // namespace syngate
