// SPDX-License-Identifier: GPL-2.0-or-later
// The verbs, one function each: the process's exit status, or an error for main to print.
#pragma once

#include "base/result.hpp"
#include "cli/options.hpp"

namespace syngate {

Result<int> command_run(const Options& options);
Result<int> command_exec(const Options& options);
Result<int> command_close(const Options& options);
Result<int> command_flip(const Options& options);
Result<int> command_ask(const Options& options); // reload, restart, status, open
Result<int> command_probe(const Options& options);
Result<int> command_entrypoint(const Options& options); // does not return: options.command takes its place
Result<int> command_cleanup(const Options& options);

} // namespace syngate
