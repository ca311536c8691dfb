// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"

#include <string>
#include <vector>

namespace syngate {

// A listening UNIX stream socket, non-blocking, mode 0600 from the first instant; missing directories are
// made with mode 0700. A dead agent's socket file is replaced, a living one's is Exit::busy; a file that
// is no socket is an error and stays. A directory on the way in which everybody may write gets sticky, or is
// an error.
Result<Fd> listen_at(const std::string& path, unsigned backlog);

// Removes from the directory the sockets NAME.sock on which nobody listens, NAME beginning with prefix: what
// killed agents left. Their paths; a directory that cannot be read or locked has none.
std::vector<std::string> sweep_sockets(const std::string& directory, const std::string& prefix);

} // namespace syngate
