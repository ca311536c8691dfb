// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace syngate::load {

// How one connection ended, as its user saw it.
enum class Outcome : std::uint8_t {
    ok,          // a whole answer with a 2xx status, then EOF (or our reset, if asked for)
    refused,     // RST to the SYN, or an ICMP error that says so
    reset,       // RST after the handshake, even behind a whole answer
    timed_out,   // nothing decisive until the timeout, which counts from the intended start
    empty,       // EOF without a byte
    short_,      // EOF within the header, or before Content-Length bytes of the body
    bad_status,  // a whole answer, but not 2xx: a proxy whose server is away
    unreachable, // no route, or an ICMP unreachable
    local, // this machine could not try (EMFILE, EADDRNOTAVAIL, ...): the measurement failed, not the server
};
inline constexpr std::size_t outcome_count = 9;

// As in the JSON: "ok", "refused", ..., "short", ...
std::string_view name_of(Outcome outcome);

// What an error of socket, bind, connect, send or recv means for the connection; code is errno.
Outcome outcome_of_error(int code);

class OutcomeCounts {
public:
    void add(Outcome outcome) { ++counts_[static_cast<std::size_t>(outcome)]; }
    [[nodiscard]] std::uint64_t operator[](Outcome outcome) const {
        return counts_[static_cast<std::size_t>(outcome)];
    }
    [[nodiscard]] std::uint64_t all() const;
    [[nodiscard]] std::uint64_t failed() const { return all() - (*this)[Outcome::ok]; }

private:
    std::array<std::uint64_t, outcome_count> counts_{};
};

} // namespace syngate::load
