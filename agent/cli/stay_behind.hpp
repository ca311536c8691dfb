// SPDX-License-Identifier: GPL-2.0-or-later
// A command that returns while a small agent of its own stays behind.
#pragma once

#include "base/result.hpp"

#include <functional>
#include <string>

namespace syngate {

// work runs in a child process, is an agent until it returns, and calls ready(message) once when what was
// asked for is done: that is when this returns, with the message printed. An error of work before that is the
// command's.
Result<int>
stay_behind(const std::function<Result<void>(const std::function<void(const std::string&)>& ready)>& work,
            bool as_json);

} // namespace syngate
