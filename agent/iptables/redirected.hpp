// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "iptables/rules_redirect.hpp"

#include <cstddef>
#include <vector>

namespace syngate {

// Connections of this network namespace that go on and were led from one of these ports to the other, by
// conntrack; where it does not tell, those to the other port.
std::size_t count_redirected(const std::vector<rules::Redirected>& redirects);

} // namespace syngate
