// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/haproxy_image.hpp"

#include "server/haproxy.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

namespace syngate {
namespace {

// Puts what the configuration leaves open in front of it: HAProxy takes the first of two.
void add_identity(ImageCommand& command, const ImagePaths& paths) {
    const HaproxyIdentity own = haproxy_identity(command.argv);
    if (own.user)
        return;
    const auto file = [&](const char* name) { return paths.share + "/" + name; };
    const auto is_there = [&](const char* name) { return ::access(file(name).c_str(), R_OK) == 0; };
    const bool transparent = haproxy_is_transparent(command.argv);
    if (transparent && is_there("user.cfg") && !is_there("setcap.cfg")) {
        command.warning = "HAProxy stays root: its configuration asks for transparent sockets, and this "
                          "version (before 2.9) keeps no capability for them when it changes its user";
        return;
    }
    Argv files;
    for (const auto& [name, wanted] :
         {std::pair{"user.cfg", true}, {"group.cfg", !own.group}, {"setcap.cfg", transparent}})
        if (wanted && is_there(name))
            files.insert(files.end(), {"-f", file(name)});
    command.argv.insert(command.argv.begin() + 1, files.begin(), files.end());
}

} // namespace

ImageCommand image_command(const Argv& arguments, const ImagePaths& paths) {
    if (!arguments.empty() && !arguments.front().starts_with("-"))
        return {.supervised = false, .argv = arguments, .warning = {}};
    ImageCommand command{.supervised = true, .argv = {"haproxy"}, .warning = {}};
    command.argv.insert(command.argv.end(), arguments.begin(), arguments.end());
    if (haproxy_files(command.argv).empty())
        command.argv.insert(command.argv.begin() + 1, {"-f", paths.configuration});
    command.supervised = haproxy_serves(command.argv);
    if (command.supervised)
        add_identity(command, paths);
    return command;
}

std::string unsupervised_warning(const Argv& command) {
    if (command.empty() || !is_haproxy(std::filesystem::path(command.front()).filename().native()) ||
        !haproxy_serves(command))
        return {};
    return fmt::format("executing '{}' as it is, without syngate: no gate, no reload. Arguments that start "
                       "with '-' are for the HAProxy that syngate runs: leave the word '{}' out",
                       fmt::join(command, " "), command.front());
}

} // namespace syngate
