// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace syngate {

// Until every packet that a CPU has begun to receive is through: the kernel receives packets in RCU read-side
// critical sections, and this waits for a grace period. Some tens of milliseconds. Where the call does not
// exist (nohz_full), a SYN that is being looked at in these microseconds may go the old way.
void wait_for_packets_under_way();

} // namespace syngate
