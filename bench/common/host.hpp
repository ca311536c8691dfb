// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <sys/types.h>

namespace syngate::bench {

// Keeps a way to the machine's own /proc, where kernel threads are; to be called before the sandbox is
// entered.
void keep_host_proc();

// CPU time of the kernel threads whose name begins so, in seconds. Throws if there is none.
double kernel_thread_seconds(const std::string& name);

// CPU time of a process of this sandbox that has one thread, in seconds.
double process_seconds(pid_t pid);

// Keeps this thread, and whatever it starts from now on, on one of the processors that it may use: with all
// of them busy by turns, rounds differ by a tenth and more. Throws if that is refused.
void use_one_cpu();

// Of all processors of the machine: everything but idle and waiting for disks.
double busy_seconds();

} // namespace syngate::bench
