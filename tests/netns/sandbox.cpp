// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/sandbox.hpp"

#include "netns/internal.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate::live {

namespace {

constexpr auto scratch_path = "/run/scratch";
constexpr int no_privileges = 77; // SKIP_RETURN_CODE of the tier

int code_of(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void mount_or_fail(const char* type, const char* target, unsigned long flags, const char* data) {
    if (::mount(type, target, type, flags, data) != 0)
        fail(fmt::format("cannot mount a {} on {} for the live tests", type, target));
}

void make_mounts() {
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        fail("cannot make the mounts of the live tests private");
    mount_or_fail("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
    mount_or_fail("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755,size=1g");
    if (::mkdir(scratch_path, 0755) != 0)
        fail(fmt::format("cannot make {}", scratch_path));
    if (::access("/sys/fs/bpf", F_OK) != 0)
        mount_or_fail("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
    mount_or_fail("bpf", "/sys/fs/bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700");
}

void make_room() {
    make_mounts();
    constexpr std::string_view host = "syngate-test";
    if (::sethostname(host.data(), host.size()) != 0)
        fail("cannot name the host of the live tests");
    prepare_network();
    const char* path = std::getenv("PATH");
    ::setenv("PATH", fmt::format("{}:/usr/sbin:/usr/bin:/sbin:/bin", path == nullptr ? "" : path).c_str(), 1);
    ::setenv("TMPDIR", scratch_path, 1);
}

// PID 1 of the sandbox. What the tests leave behind becomes its child; what is still there when it exits is
// killed by the kernel.
int reap_until(pid_t tests) {
    while (true) {
        int status = 0;
        const pid_t ended = ::waitpid(-1, &status, 0);
        if (ended == tests)
            return code_of(status);
        if (ended < 0 && errno != EINTR)
            fail("PID 1 of the live tests has lost its child");
    }
}

int first_process(int outer_pidfd, const std::function<int()>& inside) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pollfd outer{outer_pidfd, POLLIN, 0};
    if (::poll(&outer, 1, 0) != 0) // it ended before the line above
        return 128 + SIGKILL;
    try {
        make_room();
        const pid_t tests = ::fork();
        if (tests < 0)
            fail("cannot fork the live tests");
        if (tests == 0)
            std::exit(inside());
        return reap_until(tests);
    } catch (const std::exception& error) {
        fmt::print(stderr, "{}\n", error.what());
        return EXIT_FAILURE;
    }
}

} // namespace

int in_sandbox(const std::function<int()>& inside) {
    const Fd self(pidfd_open(::getpid()));
    std::fflush(nullptr);
    if (!self || ::unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS) != 0) {
        fmt::print(
            stderr,
            "the live tests need namespaces of their own: {}; run them as root or with CAP_SYS_ADMIN\n",
            std::strerror(errno));
        return errno == EPERM ? no_privileges : EXIT_FAILURE;
    }
    const pid_t first = ::fork();
    if (first < 0) {
        fmt::print(stderr, "cannot fork the live tests: {}\n", std::strerror(errno));
        return EXIT_FAILURE;
    }
    if (first == 0)
        ::_exit(first_process(self.get(), inside));
    int status = 0;
    while (::waitpid(first, &status, 0) < 0)
        if (errno != EINTR)
            return EXIT_FAILURE;
    return code_of(status);
}

std::string scratch() {
    return scratch_path;
}

} // namespace syngate::live
