// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/outcome.hpp"

#include <cerrno>
#include <numeric>

namespace syngate::load {

std::string_view name_of(Outcome outcome) {
    switch (outcome) {
    case Outcome::ok:
        return "ok";
    case Outcome::refused:
        return "refused";
    case Outcome::reset:
        return "reset";
    case Outcome::timed_out:
        return "timed_out";
    case Outcome::empty:
        return "empty";
    case Outcome::short_:
        return "short";
    case Outcome::bad_status:
        return "bad_status";
    case Outcome::unreachable:
        return "unreachable";
    case Outcome::local:
        return "local";
    }
    return "?";
}

Outcome outcome_of_error(int code) {
    switch (code) {
    case ECONNREFUSED:
        return Outcome::refused;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        return Outcome::reset;
    case ETIMEDOUT:
        return Outcome::timed_out;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
        return Outcome::unreachable;
    default:
        return Outcome::local;
    }
}

std::uint64_t OutcomeCounts::all() const {
    return std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
}

} // namespace syngate::load
