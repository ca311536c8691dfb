// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/haproxy_image.hpp"

#include "server/haproxy.hpp"

#include <algorithm>
#include <unistd.h>

namespace syngate {
namespace {

constexpr const char* image_configuration = "/usr/local/etc/haproxy/haproxy.cfg";
// `user` and `group`, which HAProxy takes from the command line only by way of a file.
constexpr const char* image_user = "/usr/local/share/syngate/user.cfg";
// The same, with the capability that transparent sockets ask for. Not in images whose HAProxy cannot keep
// one.
constexpr const char* image_transparent_user = "/usr/local/share/syngate/transparent.cfg";

// HAProxy answers these and ends: there is nothing to supervise.
bool is_question(const Argv& arguments) {
    return std::ranges::any_of(arguments, [](const std::string& word) {
        return word == "-c" || word == "-v" || word == "-vv" || word == "-h" || word == "--help";
    });
}

} // namespace

ImageCommand image_command(const Argv& arguments) {
    if (!arguments.empty() && !arguments.front().starts_with("-"))
        return {.supervised = false, .argv = arguments};
    Argv argv{"haproxy"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    if (haproxy_files(argv).empty())
        argv.insert(argv.begin() + 1, {"-f", image_configuration});
    if (is_question(arguments))
        return {.supervised = false, .argv = std::move(argv)};
    const char* user = haproxy_is_transparent(argv) ? image_transparent_user : image_user;
    if (!haproxy_names_user(argv) && ::access(user, R_OK) == 0)
        argv.insert(argv.begin() + 1, {"-f", user});
    return {.supervised = true, .argv = std::move(argv)};
}

} // namespace syngate
