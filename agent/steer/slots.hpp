// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace syngate {

// Which slots of the map `sockets` are taken: runs of them, as a rule's sockets are neighbours.
class Slots {
public:
    explicit Slots(std::uint32_t size) : taken_(size) {}

    // The first of count free ones in a row. Empty: there is no such run.
    std::optional<std::uint32_t> take(std::uint32_t count) {
        const auto free =
            std::search_n(taken_.begin(), taken_.end(), static_cast<std::ptrdiff_t>(count), false);
        if (free == taken_.end())
            return {};
        std::fill_n(free, count, true);
        return static_cast<std::uint32_t>(free - taken_.begin());
    }
    void give_back(std::uint32_t first, std::uint32_t count) {
        std::fill_n(taken_.begin() + first, count, false);
    }

private:
    std::vector<bool> taken_;
};

} // namespace syngate
