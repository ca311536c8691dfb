// SPDX-License-Identifier: GPL-2.0-or-later
// What the container image runs for the arguments that it is given: HAProxy under the agent, or a command as
// it is.
#pragma once

#include "server/children.hpp"

#include <string>

namespace syngate {

struct ImageCommand {
    bool supervised = true; // else executed in the agent's place
    Argv argv;
    std::string warning; // empty: none
};

struct ImagePaths {
    std::string configuration = "/usr/local/etc/haproxy/haproxy.cfg";
    // What HAProxy takes from the command line only by way of a file: user.cfg, group.cfg, and setcap.cfg for
    // transparent sockets, which is not in images whose HAProxy knows no such line.
    std::string share = "/usr/local/share/syngate";
};

// No arguments, or a first one that starts with `-`: they are HAProxy's, and it is run under the agent with
// the image's configuration unless they name one. HAProxy's own questions (-v, -c, ...) and everything else
// are executed as they are. Reads the configuration as it is now: where it names no user, HAProxy is given
// the image's, and where it names no group either, the image's.
ImageCommand image_command(const Argv& arguments, const ImagePaths& paths = {});

// For the log where a command that is executed as it is would be an HAProxy that serves: nobody looks after
// it. Empty for every other one.
std::string unsupervised_warning(const Argv& command);

} // namespace syngate
