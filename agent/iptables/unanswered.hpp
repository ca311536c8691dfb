// SPDX-License-Identifier: GPL-2.0-or-later
// A SYN that its server has dropped, its queue being full: the client sends it again, and conntrack would
// lead it to where the first one went, whatever the rules say by then.
#pragma once

#include "base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <utility>

namespace syngate {

// Where new connections are led: of IPv6 or not, and the port that the client names.
using LedTo = std::map<std::pair<bool, std::uint16_t>, std::set<std::uint16_t>>;

// Makes conntrack forget the connections of this host that are led elsewhere and have no answer yet, so that
// their next SYN is led as a first one. Ports that are not named are left alone. To be called when no SYN
// that was led so is under way any more. Returns their number.
Result<std::size_t> forget_unanswered(const LedTo& now);

} // namespace syngate
