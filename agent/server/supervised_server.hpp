// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/ports.hpp"
#include "server/server.hpp"

#include <memory>

namespace syngate {

// A server made of real processes. Whose a listening socket is, is read from /proc; where that is not allowed
// (CAP_SYS_PTRACE), the sockets that appeared since a generation's start are its own.
// backing: empty, or the two ports of which each generation is given the one where nobody listens.
std::unique_ptr<Server> make_supervised_server(Children& children, Sockets& sockets, Recipe recipe,
                                               PortSet backing = {});

} // namespace syngate
