// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/program.hpp"

#include "base/fd.hpp"
#include "control/registry.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr Duration sign_every = std::chrono::milliseconds(250); // the shortest lease is 1 s

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

// In the child. It dies with the agent: one that waited for a lock would put its rules into place after the
// next agent has cleared up. By starting it must gain no capability that the agent has given up: the kernel
// takes the signal back from a program that does.
[[noreturn]] void become(char* const* argv, const std::array<int, 3>& standard, pid_t agent, int failed) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != agent)
        ::_exit(127);
    ::setpgid(0, 0);
    for (int number = 1; number < NSIG; ++number)
        ::signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (int fd = 0; fd < 3; ++fd)
        ::dup2(standard[static_cast<std::size_t>(fd)], fd);
    ::execv(argv[0], argv);
    const int error = errno;
    [[maybe_unused]] const auto told = ::write(failed, &error, sizeof error);
    ::_exit(127);
}

// 0, or the errno of what failed.
int start_program(const std::vector<std::string>& argv, const std::array<int, 3>& standard, pid_t& pid) {
    std::vector<char*> arguments;
    for (const auto& each : argv)
        arguments.push_back(const_cast<char*>(each.c_str()));
    arguments.push_back(nullptr);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return errno;
    const Fd read_end(ends[0]);
    Fd write_end(ends[1]);
    const pid_t agent = ::getpid();
    pid = ::fork();
    if (pid < 0)
        return errno;
    if (pid == 0)
        become(arguments.data(), standard, agent, write_end.get());
    write_end.reset();
    int error = 0;
    if (::read(read_end.get(), &error, sizeof error) != sizeof error)
        return 0; // it runs
    ::waitpid(pid, nullptr, 0);
    return error;
}

std::vector<const SignOfLife*>& living() {
    static std::vector<const SignOfLife*> all;
    return all;
}

// False at the deadline.
bool wait_for_end(pid_t pid, Duration patience) {
    const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd)
        return true; // waitpid waits then, without a deadline
    const Time deadline = Clock::now() + patience;
    while (!wait_answering(pidfd.get(), std::min(deadline, Clock::now() + sign_every))) {
        if (Clock::now() >= deadline)
            return false;
        SignOfLife::give_all();
    }
    return true;
}

} // namespace

void SignOfLife::give_all() {
    for (const SignOfLife* each : living())
        each->sign_();
}

SignOfLife::SignOfLife(std::function<void()> sign) : sign_(std::move(sign)) {
    living().push_back(this);
}

SignOfLife::~SignOfLife() {
    std::erase(living(), this);
}

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
    SignOfLife::give_all();
    const Fd in = memory_file(input);
    const Fd out = memory_file("");
    const Fd err = memory_file("");
    if (!in || !out || !err)
        return system_failure(fmt::format("cannot make memory files for '{}'", argv.front()), errno);
    pid_t pid = -1;
    if (const int error = start_program(argv, {in.get(), out.get(), err.get()}, pid))
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
