// SPDX-License-Identifier: GPL-2.0-or-later
// HAProxy's command line and configuration, as far as a reload needs them. Used by this room only.
#pragma once

#include "server/recipe.hpp"

#include <string_view>

namespace syngate {

// "haproxy", "haproxy-2.8", "haproxy28"; not its wrappers.
bool is_haproxy(std::string_view base_name);

// Exit::usage for -sf and -st.
Result<Recipe> haproxy_recipe(const Argv& server);

// start, with `-x SOCKET` when the configuration has a stats socket with `expose-fd listeners` on which
// somebody listens now: HAProxy does not start at all with a -x that leads nowhere.
Argv haproxy_overlap_command(const Argv& start);

// The configuration files and directories that a HAProxy command line names, as they are written.
Argv haproxy_files(const Argv& server);

// Whether the configuration, as it is now, has sockets with addresses that are not this host's.
bool haproxy_is_transparent(const Argv& server);

// Whether the configuration, as it is now, says which user and group HAProxy becomes.
struct HaproxyIdentity {
    bool user = false;
    bool group = false;
};
HaproxyIdentity haproxy_identity(const Argv& server);

// False for arguments that HAProxy answers, to end at once: a check, a version, a help.
bool haproxy_serves(const Argv& server);

} // namespace syngate
