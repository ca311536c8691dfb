// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "iptables/rules_redirect.hpp"

#include <cstddef>
#include <vector>

namespace syngate {

// For each of them the connections of this network namespace that go on and were led from the one port to the
// other, by conntrack: to an address of this host, as others lead connections elsewhere. Where conntrack does
// not tell, those to the other port.
std::vector<std::size_t> count_redirected(const std::vector<rules::Redirected>& redirects);

} // namespace syngate
