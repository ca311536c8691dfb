// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/handover.hpp"

#include <algorithm>

namespace syngate {

Handover::Handover(Listeners before, PortSet ports, Duration settle)
    : before_(std::move(before)), ports_(std::move(ports)), settle_(settle),
      old_(cookies_of(before_, ports_)) {}

bool Handover::all_back(const Listeners& now) const {
    const auto expected = addresses_of(before_, ports_);
    return expected.empty() ? std::ranges::includes(ports_of(now), ports_)
                            : std::ranges::includes(addresses_of(now, ports_), expected);
}

bool Handover::look(const Listeners& now) {
    const Time here = Clock::now();
    auto cookies = cookies_of(now, ports_);
    if (cookies != seen_)
        changed_ = here;
    seen_ = std::move(cookies);
    const bool old_left = std::ranges::any_of(old_, [&](auto cookie) { return seen_.contains(cookie); });
    state_ = !all_back(now) ? State::not_everywhere : old_left ? State::old_ones_too : State::new_ones;
    return state_ == State::new_ones || (state_ == State::old_ones_too && here >= changed_ + settle_);
}

bool Handover::has_settled() const {
    return Clock::now() >= changed_ + settle_ && !std::ranges::includes(old_, seen_);
}

} // namespace syngate
