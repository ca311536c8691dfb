// SPDX-License-Identifier: GPL-2.0-or-later
// A client on this host itself: its SYN is translated when it leaves, and may then wait behind lo.
#pragma once

namespace syngate {

// Until what was sent over lo before this call has been received: a datagram of our own goes the same way on
// each CPU that is ours to use. A CPU on which none arrives in time, such as behind a firewall, ends the
// wait.
void wait_for_packets_behind_loopback();

} // namespace syngate
