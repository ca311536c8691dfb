// SPDX-License-Identifier: GPL-2.0-or-later
// The place in which every live test runs: fresh network, mount, PID and UTS namespaces around the whole
// process, made by the tier's main() before the first test. A test may do to its interfaces, rules, sysctls,
// /run and bpffs what it likes; all of it, processes included, is gone when the tier's process ends, even by
// SIGKILL.
//
//     outer process            waits and passes the status on
//       PID 1 of the sandbox   dies with the outer one (PR_SET_PDEATHSIG), reaps, ends with the tests; the
//       kernel then
//         test process         kills whatever else is left in the PID namespace
//
// Where the privileges for the namespaces are missing the tier exits with 77, which ctest counts as skipped.
#pragma once

#include "netns/agent.hpp"
#include "netns/load_run.hpp"
#include "netns/namespace.hpp"
#include "netns/process.hpp"
#include "netns/servers.hpp"

#include <functional>
#include <string>

namespace syngate::live {

// Runs it in a sandbox of its own and returns its exit status; 77 where the privileges are missing.
int in_sandbox(const std::function<int()>& inside);

// A directory on a tmpfs of this sandbox, also TMPDIR of what the tests run. /run is fresh, too, and
// /sys/fs/bpf is a bpffs of our own; the rest of the file system is the machine's: do not write there.
std::string scratch();

} // namespace syngate::live
