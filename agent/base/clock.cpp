// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/clock.hpp"

#include <charconv>
#include <cmath>
#include <fmt/format.h>

namespace syngate {

Result<Duration> parse_duration(std::string_view text) {
    const auto wrong = [&] {
        return failure(Exit::usage,
                       fmt::format("'{}' is no duration: write 3s, 250ms, 40us, 5m or 1h", text));
    };
    double number = 0;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || !std::isfinite(number) || number < 0)
        return wrong();
    const std::string_view unit(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
    double scale = 0;
    if (unit.empty() || unit == "s")
        scale = 1e9;
    else if (unit == "ms")
        scale = 1e6;
    else if (unit == "us")
        scale = 1e3;
    else if (unit == "m")
        scale = 60e9;
    else if (unit == "h")
        scale = 3600e9;
    else
        return wrong();
    if (number * scale > 1e17) // three years: more is a typing error, and would overflow in sums
        return wrong();
    return Duration(static_cast<std::int64_t>(std::llround(number * scale)));
}

std::string format_duration(Duration d) {
    const double ns = static_cast<double>(d.count());
    if (std::abs(ns) >= 1e9)
        return fmt::format("{:.4g}s", ns / 1e9);
    if (std::abs(ns) >= 1e6)
        return fmt::format("{:.4g}ms", ns / 1e6);
    return fmt::format("{:.4g}us", ns / 1e3);
}

} // namespace syngate
