// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/scratch_child.hpp"

#include "base/fd.hpp"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

namespace syngate {
namespace {

// First the errno of unshare(2), an int; then the text.
[[noreturn]] void child(int out, const std::function<std::string()>& work) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int error = ::unshare(CLONE_NEWNET) == 0 ? 0 : errno;
    std::string message(reinterpret_cast<const char*>(&error), sizeof(error));
    if (!error)
        message += work();
    for (std::size_t sent = 0; sent < message.size();) {
        const ssize_t size = ::write(out, message.data() + sent, message.size() - sent);
        if (size < 0 && errno != EINTR)
            ::_exit(1);
        sent += static_cast<std::size_t>(std::max<ssize_t>(size, 0));
    }
    ::_exit(0);
}

// Until the child closes its end. False at the deadline.
bool read_all(int in, Time deadline, std::string& message) {
    for (;;) {
        pollfd entry{.fd = in, .events = POLLIN, .revents = 0};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0)
            return false;
        if (::poll(&entry, 1, static_cast<int>(left)) <= 0)
            continue;
        char buffer[4096];
        const ssize_t size = ::read(in, buffer, sizeof(buffer));
        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0)
            return true;
        message.append(buffer, static_cast<std::size_t>(size));
    }
}

} // namespace

Result<std::string> in_scratch_namespace(const std::function<std::string()>& work, Duration patience) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return system_failure("cannot make a pipe", errno);
    const Fd in(ends[0]);
    Fd out(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0)
        return system_failure("cannot fork", errno);
    if (pid == 0)
        child(out.get(), work);
    out.reset();

    std::string message;
    const bool in_time = read_all(in.get(), Clock::now() + patience, message);
    if (!in_time)
        ::kill(pid, SIGKILL);
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (!in_time)
        return failure(Exit::failed,
                       fmt::format("was still at work after {} and was killed", format_duration(patience)),
                       ETIMEDOUT);
    int error = 0;
    if (message.size() < sizeof(error))
        return failure(Exit::failed, "the child process ended early", ECHILD);
    std::memcpy(&error, message.data(), sizeof(error));
    if (error)
        return system_failure("cannot make a network namespace", error);
    return message.substr(sizeof(error));
}

} // namespace syngate
