// SPDX-License-Identifier: GPL-2.0-or-later
// The parts of the benchmark `scale`.
#pragma once

#include "common/result.hpp"

#include "base/clock.hpp"
#include "base/result.hpp"

#include <stdexcept>
#include <type_traits>

namespace syngate::bench {

void measure_ports(const Settings& settings, Result& result);
void measure_parked(const Settings& settings, Result& result);
void measure_interfaces(const Settings& settings, Result& result);

// Microseconds that it takes.
template <class F> double time_us(F f) {
    const Time begin = Clock::now();
    f();
    return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

// The value, or what went wrong thrown.
template <class T> T must(syngate::Result<T> result) {
    if (!result)
        throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

} // namespace syngate::bench
