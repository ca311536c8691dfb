// SPDX-License-Identifier: GPL-2.0-or-later
// nginx's command line and configuration, as far as a reload needs them. Used by recipe.cpp only.
#pragma once

#include "server/recipe.hpp"

#include <string_view>

namespace syngate {

// "nginx", "nginx-debug", "nginx-1.22".
bool is_nginx(std::string_view base_name);

// Reads the configuration to see whether nginx would leave for the background. Exit::usage for -s, and for
// `daemon on`, which cannot be overruled.
Result<Recipe> nginx_recipe(const Argv& server);

} // namespace syngate
