// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace syngate {

// Until every packet that a CPU has begun to receive is through. The kernel receives packets with softirqs
// off, so a thread that has run on each CPU has seen the end of them, soon if the CPUs are few. Where it may
// not run everywhere, or softirqs can be preempted (PREEMPT_RT), it is an RCU grace period: several timer
// ticks. Where that call does not exist (nohz_full), a SYN that is being looked at in these
// microseconds may go the old way.
void wait_for_packets_under_way();

// Each of the two, for tests. False: it cannot be had here.
bool run_on_every_cpu();
bool wait_for_grace_period();

} // namespace syngate
