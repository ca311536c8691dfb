// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string_view>
#include <sys/types.h>

namespace syngate {

// Who made the listening SOCK_SEQPACKET socket of this abstract name, as unix_diag tells without connecting:
// for one whose backlog is full. Empty: there is none, or the kernel cannot tell (before 5.3, or no
// unix_diag).
std::optional<uid_t> listener_owner(std::string_view abstract_name);

} // namespace syngate
