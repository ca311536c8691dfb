// SPDX-License-Identifier: GPL-2.0-or-later
// HAProxy's command line and configuration, as far as a reload needs them. Used by recipe.cpp only.
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

} // namespace syngate
