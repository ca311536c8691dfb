// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/program.hpp"

#include "base/fd.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate {
namespace {

class Plan {
public:
    Plan(int in, int out, int err) {
        posix_spawnattr_init(&attributes);
        posix_spawn_file_actions_init(&actions);
        sigset_t set;
        sigfillset(&set);
        posix_spawnattr_setsigdefault(&attributes, &set);
        sigemptyset(&set);
        posix_spawnattr_setsigmask(&attributes, &set);
        posix_spawnattr_setflags(&attributes,
                                 POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
        posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
        posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
        posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
    }
    ~Plan() {
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
    }
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;

    posix_spawnattr_t attributes{};
    posix_spawn_file_actions_t actions{};
};

// Memory files instead of pipes: nothing can fill up, whatever is read when.
Fd memory_file(const std::string& content) {
    Fd fd(::memfd_create("syngate", MFD_CLOEXEC));
    for (std::size_t done = 0; fd && done < content.size();) {
        const ssize_t n = ::write(fd.get(), content.data() + done, content.size() - done);
        if (n < 0 && errno != EINTR)
            return {};
        done += n < 0 ? 0 : static_cast<std::size_t>(n);
    }
    if (fd)
        ::lseek(fd.get(), 0, SEEK_SET);
    return fd;
}

std::string content_of(const Fd& fd) {
    std::string text;
    std::array<char, 16384> buffer{};
    off_t at = 0;
    for (ssize_t n = 0; (n = ::pread(fd.get(), buffer.data(), buffer.size(), at)) > 0; at += n)
        text.append(buffer.data(), static_cast<std::size_t>(n));
    return text;
}

// False at the deadline.
bool wait_for_end(pid_t pid, Duration patience) {
    const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd)
        return true; // waitpid waits then, without a deadline
    const Time deadline = Clock::now() + patience;
    for (;;) {
        pollfd entry{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0)
            return false;
        if (::poll(&entry, 1, static_cast<int>(left)) > 0)
            return true;
    }
}

} // namespace

std::string find_program(const std::string& name) {
    const char* path = std::getenv("PATH");
    std::istringstream directories(std::string(path ? path : "") + ":/usr/sbin:/sbin:/usr/bin:/bin");
    for (std::string directory; std::getline(directories, directory, ':');) {
        const std::string candidate = directory + "/" + name;
        if (directory.starts_with('/') && ::access(candidate.c_str(), X_OK) == 0)
            return candidate;
    }
    return "";
}

Result<ProgramResult> run_program(const std::vector<std::string>& argv, const std::string& input,
                                  Duration patience) {
    const Fd in = memory_file(input);
    const Fd out = memory_file("");
    const Fd err = memory_file("");
    if (!in || !out || !err)
        return system_failure(fmt::format("cannot make memory files for '{}'", argv.front()), errno);
    const Plan plan(in.get(), out.get(), err.get());
    std::vector<char*> arguments;
    for (const auto& each : argv)
        arguments.push_back(const_cast<char*>(each.c_str()));
    arguments.push_back(nullptr);
    pid_t pid = -1;
    if (const int error = ::posix_spawn(&pid, argv.front().c_str(), &plan.actions, &plan.attributes,
                                        arguments.data(), environ))
        return system_failure(fmt::format("cannot run '{}'", argv.front()), error);
    const bool in_time = wait_for_end(pid, patience);
    if (!in_time)
        ::kill(-pid, SIGKILL);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return system_failure(fmt::format("cannot wait for '{}'", argv.front()), errno);
    }
    if (!in_time)
        return failure(
            Exit::failed,
            fmt::format("'{}' did not end within {} and was killed", argv.front(), format_duration(patience)),
            ETIMEDOUT);
    ProgramResult result{.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status),
                         .out = content_of(out),
                         .err = content_of(err)};
    while (result.err.ends_with('\n'))
        result.err.pop_back();
    return result;
}

} // namespace syngate
