// SPDX-License-Identifier: GPL-2.0-or-later
// Log lines go to standard error, one a line, level first; standard output belongs to answers.
#pragma once

#include <spdlog/spdlog.h>
#include <string>

namespace syngate {

// level: trace, debug, info, warning, error. With journald behind standard error its priority
// prefixes are written instead of times.
void log_start(const std::string& level);

} // namespace syngate
