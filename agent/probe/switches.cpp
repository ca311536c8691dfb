// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/switches.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace syngate {
namespace {

// Calls f(name) for each; stops when it returns true, and returns whether it did.
template <class F> bool any_switch(F&& f) {
    const char* value = std::getenv("SYNGATE_NO_FEATURE");
    std::string_view list = value ? value : "";
    while (!list.empty()) {
        const std::size_t end = list.find(',');
        const std::string_view name = list.substr(0, end);
        list.remove_prefix(end == list.npos ? list.size() : end + 1);
        if (!name.empty() && f(name))
            return true;
    }
    return false;
}

} // namespace

bool switched_off(std::string_view name) {
    return any_switch([&](std::string_view each) { return each == name; });
}

Result<void> check_switches() {
    std::string unknown;
    const bool found = any_switch([&](std::string_view each) {
        unknown = each;
        return std::ranges::find(feature::all, each) == std::end(feature::all);
    });
    if (!found)
        return {};
    return failure(Exit::usage, fmt::format("SYNGATE_NO_FEATURE: '{}' is no feature; there are {}", unknown,
                                            fmt::join(feature::all, ", ")));
}

} // namespace syngate
