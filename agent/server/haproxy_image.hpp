// SPDX-License-Identifier: GPL-2.0-or-later
// What the container image runs for the arguments that it is given: HAProxy under the agent, or a command as
// it is.
#pragma once

#include "server/children.hpp"

namespace syngate {

struct ImageCommand {
    bool supervised = true; // else executed in the agent's place
    Argv argv;
};

// No arguments, or a first one that starts with `-`: they are HAProxy's, and it is run under the agent with
// the image's configuration unless they name one. HAProxy's own questions (-v, -c, ...) and everything else
// are executed as they are. Reads the configuration as it is now: where it names no user, HAProxy is given
// the image's.
ImageCommand image_command(const Argv& arguments);

} // namespace syngate
