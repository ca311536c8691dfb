// SPDX-License-Identifier: GPL-2.0-or-later
// Which processes belong to a server, and which sockets they hold (/proc).
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <sys/types.h>

namespace syngate {

// root, its descendants, and every process whose process group is root. Empty when all are gone; zombies do
// not count.
std::set<pid_t> process_tree(pid_t root);

// Inodes of the sockets that these processes hold open. A process that ends meanwhile is passed
// over. Exit::impossible naming CAP_SYS_PTRACE when the kernel does not let us look at one of them.
Result<std::set<std::uint32_t>> socket_inodes(const std::set<pid_t>& processes);

// Inodes of what the epoll instances of these processes watch; nothing if they have no such instance.
std::optional<std::set<std::uint32_t>> polled_inodes(const std::set<pid_t>& processes);

// Whether the process has a handler for the signal and does not block it now.
bool handles_signal(pid_t process, int signal);

} // namespace syngate
