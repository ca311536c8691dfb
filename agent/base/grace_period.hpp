// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace syngate {

// Until every packet that a CPU has begun to receive is through. The kernel receives packets with softirqs
// off, so a thread that has run on each CPU has seen the end of them, soon if the CPUs are few. Where it may
// not run everywhere, or softirqs can be preempted (PREEMPT_RT), it is an RCU grace period: several timer
// ticks.
void wait_for_packets_under_way();

// The first of the two. False: not to be had here, or not in the time that the other one takes.
bool run_on_every_cpu();

// Also those that netfilter gets back from a queue. False: the call does not exist (nohz_full), and a SYN
// that is being looked at in these microseconds may go the old way.
bool wait_for_grace_period();

} // namespace syngate
