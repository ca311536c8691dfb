// SPDX-License-Identifier: GPL-2.0-or-later
// How a kind of server is checked, reloaded and stopped: the only place that knows HAProxy or nginx.
#pragma once

#include "base/result.hpp"
#include "server/children.hpp"

#include <string>

namespace syngate {

enum class ReloadHow {
    overlap, // the new server starts beside the old one
    signal,  // the server reloads itself when it gets reload_signal
    restart, // stop, start
};

struct Recipe {
    std::string kind; // "haproxy", "nginx", "other"
    Argv start;
    Argv check; // empty: there is no way to check the configuration
    ReloadHow reload = ReloadHow::restart;
    int reload_signal = 0;  // for ReloadHow::signal
    bool stays_up = false;  // for ReloadHow::signal: somebody listens and accepts at every moment of it
    int release_signal = 0; // close the listening sockets, finish what is open, end
    bool graceful = false;  // release_signal lets open connections finish
    // By its configuration, as it is now:
    bool changes_user = false; // started by root, it goes on as another user
    bool uses_bpf = false;     // nginx's quic_bpf
    bool transparent = false;  // it has sockets with addresses that are not this host's
};

struct RecipeOptions {
    std::string reload;      // "": the kind's default; "overlap", "restart", "signal=HUP", "signal=SIGHUP"
    std::string check;       // "": the kind's default; else a command line, split at blanks
    std::string stop_signal; // "": the kind's default (release_signal)
};

// Recognises the server by its program's base name. Exit::usage for an unknown reload or signal name.
Result<Recipe> make_recipe(const Argv& server, const RecipeOptions& options);

// The command for the server that starts beside a running one: for HAProxy with `-x SOCKET` when its
// configuration, read anew, has a stats socket with `expose-fd listeners` that exists now.
Argv overlap_command(const Recipe& recipe);

// "HUP", "SIGHUP", "1" to 1. Exit::usage.
Result<int> parse_signal(const std::string& name);

} // namespace syngate
