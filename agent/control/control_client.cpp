// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/control_client.hpp"

#include "control/unix_socket.hpp"

#include <cerrno>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/time.h>

namespace syngate {
namespace {

using Json = nlohmann::json;

constexpr std::size_t max_answer = 16 * 1024 * 1024; // bytes; a status of thousands of ports is far below

// Who owns the socket or, where we may not even look at it, the directory that keeps us out.
std::string owner_of(const std::string& control_path) {
    std::filesystem::path path = control_path;
    struct stat status {};
    while (::lstat(path.c_str(), &status) < 0) {
        if (path == path.parent_path() || path.parent_path().empty())
            return "unknown";
        path = path.parent_path();
    }
    return std::to_string(status.st_uid);
}

std::unexpected<Error> cannot_connect(const std::string& path, int why) {
    switch (why) {
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
        return failure(Exit::failed,
                       fmt::format("no agent answers at '{}': {}; start one with `syngate run`, or name the "
                                   "control socket of the one that runs",
                                   path, std::strerror(why)),
                       why);
    case EACCES:
    case EPERM:
        return failure(Exit::failed,
                       fmt::format("may not control the agent at '{}': {}; run this as uid 0 or as uid {}, "
                                   "now it is uid {}",
                                   path, std::strerror(why), owner_of(path), ::geteuid()),
                       why);
    case EAGAIN:
        return failure(Exit::failed,
                       fmt::format("the agent at '{}' takes no connection: it is stopped or overloaded; look "
                                   "at its process",
                                   path),
                       ETIMEDOUT);
    default:
        return system_failure(fmt::format("cannot connect to the agent at '{}'", path), why);
    }
}

Result<Fd> connect_to(const std::string& path, Time deadline) {
    const auto address = path_address(path);
    if (!address)
        return std::unexpected(address.error());
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd)
        return system_failure("cannot make a UNIX socket", errno);
    // connect(2) waits for a place in the backlog as long as this; poll(2) cannot wait for that.
    const int left = std::max(1, milliseconds_until(deadline));
    const timeval patience{.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return system_failure("cannot set a time limit on a UNIX socket", errno);
    while (::connect(fd.get(), address->get(), address->length) < 0)
        if (errno != EINTR || Clock::now() >= deadline)
            return cannot_connect(path, errno);
    return fd;
}

// An agent that refuses closes without reading: then its answer is there all the same.
void send_all(int fd, const std::string& line, Time deadline) {
    for (std::size_t sent = 0; sent < line.size();) {
        const ssize_t size = ::send(fd, line.data() + sent, line.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size >= 0)
            sent += static_cast<std::size_t>(size);
        else if (errno != EINTR && (errno != EAGAIN || !wait_for(fd, POLLOUT, deadline)))
            return;
    }
}

} // namespace

Result<Json> ask(const std::string& control_path, const Json& request, Duration timeout) {
    const Time deadline = Clock::now() + timeout;
    const auto fd = connect_to(control_path, deadline);
    if (!fd)
        return std::unexpected(fd.error());
    send_all(fd->get(), request.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n', deadline);

    std::string answer;
    for (;;) {
        if (!wait_for(fd->get(), POLLIN, deadline))
            return failure(Exit::failed,
                           fmt::format("the agent at '{}' did not answer within {}: it is stopped, hung or "
                                       "still at work; look at its log",
                                       control_path, format_duration(timeout)),
                           ETIMEDOUT);
        char buffer[64 * 1024];
        const ssize_t size = ::recv(fd->get(), buffer, sizeof(buffer), MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (size < 0 && errno != ECONNRESET)
            return system_failure(fmt::format("cannot read the answer of the agent at '{}'", control_path),
                                  errno);
        if (size <= 0)
            return failure(Exit::failed,
                           fmt::format("the agent at '{}' closed the connection without an answer: it has "
                                       "ended; look at its log",
                                       control_path),
                           ECONNRESET);
        const std::size_t before = answer.size();
        answer.append(buffer, static_cast<std::size_t>(size));
        const std::size_t end = answer.find('\n', before);
        if (end != answer.npos) {
            Json json = Json::parse(answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(end),
                                    nullptr, false);
            if (json.is_object())
                return json;
        }
        if (end != answer.npos || answer.size() > max_answer)
            return failure(Exit::failed,
                           fmt::format("what answers at '{}' is no syngate agent, or one of another version",
                                       control_path),
                           EBADMSG);
    }
}

} // namespace syngate
