// SPDX-License-Identifier: GPL-2.0-or-later
// What the parts of the harness share and tests have no use for.
#pragma once

#include <string>
#include <sys/syscall.h>
#include <unistd.h>

namespace syngate::live {

// Throws std::runtime_error with errno's text.
[[noreturn]] void fail(const std::string& what);

// Makes the calling thread's fresh network namespace ready: see Namespace.
void prepare_network();

// By number: glibc 2.36 declares its wrappers without C linkage.
inline int pidfd_open(pid_t pid) {
    return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}
inline int pidfd_send_signal(int pidfd, int number) {
    return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, number, nullptr, 0));
}

} // namespace syngate::live
