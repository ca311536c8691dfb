// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "netns/namespace.hpp"

#include <optional>

namespace syngate::bench {

// A T in a network namespace of its own, beside others of its kind: made and destroyed inside.
template <class T> class Elsewhere {
public:
    template <class... Args> explicit Elsewhere(const Args&... args) {
        const live::Inside inside(home_);
        what_.emplace(args...);
    }
    ~Elsewhere() {
        const live::Inside inside(home_);
        what_.reset();
    }
    Elsewhere(const Elsewhere&) = delete;
    Elsewhere& operator=(const Elsewhere&) = delete;
    const T& operator*() const { return *what_; }
    // In that namespace.
    template <class Function> auto inside(const Function& function) const {
        const live::Inside inside(home_);
        return function(*what_);
    }

private:
    live::Namespace home_;
    std::optional<T> what_;
};

} // namespace syngate::bench
