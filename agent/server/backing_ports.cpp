// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/backing_ports.hpp"

#include "base/fd.hpp"

#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace syngate {

Result<PortSet> pick_backing_ports() {
    PortSet ports;
    std::array<Fd, 2> taken; // until both are known
    for (Fd& fd : taken) {
        fd = Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        socklen_t size = sizeof(address);
        auto* generic = reinterpret_cast<sockaddr*>(&address);
        if (!fd || bind(fd.get(), generic, size) < 0 || getsockname(fd.get(), generic, &size) < 0)
            return system_failure("cannot find two free ports for the server (--flip-ports names them)",
                                  errno);
        ports.insert(ntohs(address.sin_port));
    }
    return ports;
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
