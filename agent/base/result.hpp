// SPDX-License-Identifier: GPL-2.0-or-later
// How errors travel: as values, with everything that the user is told.
#pragma once

#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace syngate {

// The process's exit status, one meaning each; documented in syngate(8).
enum class Exit : int {
    ok = 0,
    failed = 1,
    usage = 2,      // bad input; nothing was changed
    impossible = 3, // a missing capability or kernel feature, named in the message
    busy = 4,       // another agent gates this port, or another program holds the hook
};

struct Error {
    Exit exit = Exit::failed;
    std::string message; // what failed, on what, why, and what the user can do
    int code = 0;        // errno, or 0
};

template <class T = void> using Result = std::expected<T, Error>;

inline std::unexpected<Error> failure(Exit exit, std::string message, int code = 0) {
    return std::unexpected(Error{exit, std::move(message), code});
}

// "what: why (errno text)"; code is positive.
inline std::unexpected<Error> system_failure(const std::string& what, int code, Exit exit = Exit::failed) {
    return failure(exit, what + ": " + std::strerror(code), code);
}

} // namespace syngate
