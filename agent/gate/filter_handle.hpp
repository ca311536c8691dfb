// SPDX-License-Identifier: GPL-2.0-or-later
// What a tc filter's handle says about its agent. Its program's maps say it all, but only CAP_SYS_ADMIN may
// open them by id, and a container rarely has that; a handle is there for everybody to read.
#pragma once

#include "base/result.hpp"
#include "gate/attachment.hpp"
#include "gate/tc_filters.hpp"

#include <cstdint>
#include <vector>

namespace syngate {

// made_qdisc: the clsact qdisc that the filter is in was made by an agent, this one or an earlier one.
std::uint32_t filter_handle(std::uint64_t owner_id, TcRole role, bool made_qdisc);

// One of the filters says that the qdisc was made by an agent: whichever agent goes last removes it.
bool tells_of_made_qdisc(const std::vector<TcFilter>& filters);

// Whether the filter is one of a dead agent, whose program we may not open to learn more. False for every
// filter whose program we may open, and for other people's.
Result<bool> is_dead_by_handle(const TcFilter& filter);

} // namespace syngate
