// SPDX-License-Identifier: GPL-2.0-or-later
// Tells systemd, or whoever else set NOTIFY_SOCKET, what the agent is about (sd_notify). Without it: nothing.
#pragma once

#include <string>

namespace syngate {

enum class ServiceState { ready, reloading, stopping };

// text: one line, for `systemctl status`. What cannot be told is not told: nothing depends on it.
void tell_service_manager(ServiceState state, const std::string& text);

} // namespace syngate
