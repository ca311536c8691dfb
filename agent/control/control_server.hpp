// SPDX-License-Identifier: GPL-2.0-or-later
// The control socket: a UNIX stream socket, mode 0600, one JSON object a line each way.
#pragma once

#include "base/result.hpp"
#include "event/loop.hpp"

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace syngate {

// Answers one request; may be kept and called later (a reload answers when it ended), once. Does
// nothing when the client has gone meanwhile.
using Reply = std::function<void(const nlohmann::json&)>;

class ControlServer {
public:
    // Makes the directory (0700) and the socket (0600); a dead agent's socket file is replaced, a
    // living one's is Exit::busy. Peers whose uid (SO_PEERCRED) is neither 0 nor ours are refused.
    static Result<std::unique_ptr<ControlServer>>
    start(Loop& loop, const std::string& path, std::function<void(const nlohmann::json&, Reply)> handler);
    ~ControlServer(); // removes the socket file

private:
    ControlServer();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace syngate
