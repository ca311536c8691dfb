// SPDX-License-Identifier: GPL-2.0-or-later
// How long a process keeps a processor that others wait for. On a busy machine a starting server or a
// configuration check that takes whole turns (milliseconds) is what clients of the serving one notice.
#pragma once

#include <set>
#include <sys/types.h>

namespace syngate {

// Turns of 100 us, the shortest that the kernel takes, for the process and whatever it starts from now on;
// its share of the processors stays. Linux 6.12 (EEVDF with a slice a task, sched_setattr(2)); before,
// nothing changes.
void take_short_turns(pid_t process);

// The kernel's own turns again, for every thread of these processes.
void take_usual_turns(const std::set<pid_t>& processes);

} // namespace syngate
