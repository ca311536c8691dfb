// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/commands.hpp"

#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <unistd.h>

namespace syngate {

Result<int> command_entrypoint(const Options& options) {
    std::signal(SIGPIPE, SIG_DFL); // main ignores it, and execve keeps that
    std::vector<char*> argv;
    for (const std::string& word : options.command)
        argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv.front(), argv.data());
    return system_failure(fmt::format("cannot execute '{}'", argv.front()), errno, Exit::usage);
}

} // namespace syngate
