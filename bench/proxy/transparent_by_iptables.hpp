// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace syngate::bench {

// The rules of iptables that are usual for transparent proxying, as the container that syngate supersedes has
// them; of IPv4, in the calling thread's network namespace.
class TransparentByIptables {
public:
    TransparentByIptables(); // throws
    ~TransparentByIptables();
    TransparentByIptables(const TransparentByIptables&) = delete;
    TransparentByIptables& operator=(const TransparentByIptables&) = delete;
};

} // namespace syngate::bench
