// SPDX-License-Identifier: GPL-2.0-or-later
// What the control socket and the registry have in common.
#pragma once

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

namespace syngate {

struct UnixAddress {
    sockaddr_un address{};
    socklen_t length = 0;
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
    // An abstract name without its leading zero byte; empty for every other address.
    [[nodiscard]] std::string_view abstract_name() const;
};

// Exit::usage when the path is empty or does not fit (107 bytes).
Result<UnixAddress> path_address(const std::string& path);
// name has at most 107 bytes.
UnixAddress abstract_address(std::string_view name);

// SO_PEERCRED. Of a connected client: who called listen(); of an accepted one: who called connect().
std::optional<uid_t> peer_uid(int fd);
// Root, or our own effective uid.
bool is_trusted(uid_t uid);

// Waits for events on one descriptor, signals notwithstanding. False at the deadline.
bool wait_for(int fd, short events, Time deadline);
// Milliseconds for poll(2), rounded up; 0 when the deadline has passed.
int milliseconds_until(Time deadline);

// A listening socket that can still accept, to say goodbye, when the process is out of descriptors:
// otherwise a connection that cannot be accepted would keep the loop spinning.
class Acceptor {
public:
    struct Accepted {
        Fd fd;               // non-blocking; empty when nobody waits
        UnixAddress from;    // the name that the client bound, if any
        bool scarce = false; // took the spare descriptor: close it before the next accept()
    };
    explicit Acceptor(Fd listener);
    Accepted accept();
    [[nodiscard]] int fd() const { return listener_.get(); }
    void close() { listener_.reset(); }

private:
    Fd listener_;
    Fd spare_;
};

} // namespace syngate
