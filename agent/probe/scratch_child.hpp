// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"

#include <functional>
#include <string>

namespace syngate {

// Runs work in a forked child with a fresh network namespace of its own and returns the text that it made;
// the namespace ends with the child. Error: code is the errno of fork(2) or unshare(2), or ETIMEDOUT when the
// child was killed at the deadline. Waits, pumps no loop.
Result<std::string> in_scratch_namespace(const std::function<std::string()>& work, Duration patience);

} // namespace syngate
