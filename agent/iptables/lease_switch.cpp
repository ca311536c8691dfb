// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/lease_switch.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <string>
#include <unistd.h>

namespace syngate {
namespace {

using WallClock = std::chrono::system_clock;
constexpr Duration lock_wait = std::chrono::seconds(1); // in the window

unsigned whole_seconds(Duration lease, unsigned at_least) {
    return static_cast<unsigned>(
        std::clamp<std::int64_t>(std::chrono::floor<std::chrono::seconds>(lease).count(), at_least, 86400));
}

// Writing to /proc/net/xt_recent/<list>: no lock, no process, some microseconds, and the monotonic clock.
class RecentSwitch final : public LeaseSwitch {
public:
    explicit RecentSwitch(std::vector<GateFamily>& families) : families_(families) {}

    Result<void> close(Duration lease) override {
        const unsigned seconds = recent_seconds(lease);
        if (seconds != families_.front().gate.lease_seconds) {
            for (auto& family : families_) {
                family.gate.lease_seconds = seconds;
                if (const auto r =
                        family.tool.apply("cannot change the lease", rules::with_lease(family.gate));
                    !r)
                    return r;
            }
        }
        return prolong();
    }

    Result<void> prolong() override {
        const Time now = Clock::now();
        auto r = write('+');
        if (r)
            prolonged_ = now;
        else if (r.error().code == ENOENT) // the rules went with it
            prolonged_ = now - limit();
        return r;
    }

    Result<void> open() override {
        auto r = write('-');
        if (!r && r.error().code == ENOENT)
            return {};
        return r;
    }

    [[nodiscard]] Time until() const override { return prolonged_ + limit(); }
    [[nodiscard]] Duration limit() const override {
        return std::chrono::seconds(families_.front().gate.lease_seconds);
    }

private:
    // Opened each time: such a file takes one write, and whoever replaces the rules replaces the file. ENOENT
    // only if nothing else was wrong.
    [[nodiscard]] Result<void> write(char what) const {
        Result<void> result;
        for (const auto& family : families_) {
            const std::string path = rules::list_path(rules::list_name(family.gate.owner, family.gate.ipv6));
            const std::string line = fmt::format("{}{}\n", what, rules::list_entry(family.gate.ipv6));
            const Fd list(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
            if ((!list || ::write(list.get(), line.data(), line.size()) < 0) &&
                (result || result.error().code == ENOENT))
                result = system_failure(
                    fmt::format("cannot write to {}, which is there with the gate's rules", path), errno);
        }
        return result;
    }

    std::vector<GateFamily>& families_;
    Time prolonged_;
};

// Where there are no such lists, or not for us: a rule with a date.
class TimeSwitch final : public LeaseSwitch {
public:
    explicit TimeSwitch(std::vector<GateFamily>& families) : families_(families) {}

    Result<void> close(Duration lease) override {
        lease_ = lease;
        return prolong();
    }

    Result<void> prolong() override {
        const auto now = std::chrono::floor<std::chrono::seconds>(WallClock::now());
        const std::time_t here = WallClock::to_time_t(now);
        const std::time_t second = time_second(here, lease_);
        // Not before a second ago: a clock that is set back opens, and does not keep closed for as long.
        auto r = apply("cannot close the gate", [here, second](const rules::Gate& gate) {
            return rules::closed_between(gate, here - 1, second);
        });
        if (r) {
            first_ = here - 1;
            second_ = second;
        }
        return r;
    }

    Result<void> open() override { return apply("cannot open the gate", rules::opened); }

    [[nodiscard]] Time until() const override {
        const auto now = WallClock::now();
        if (now < WallClock::from_time_t(first_)) // it was set back
            return Clock::now();
        return Clock::now() + (WallClock::from_time_t(second_) - now);
    }
    [[nodiscard]] Duration limit() const override {
        return std::chrono::seconds(whole_seconds(lease_, 2) - 1);
    }

private:
    template <class Text> Result<void> apply(const char* what, Text&& text) {
        Result<void> result;
        for (const auto& family : families_)
            if (auto r = family.tool.apply(what, text(family.gate), lock_wait); !r)
                result = std::move(r);
        return result;
    }

    std::vector<GateFamily>& families_;
    Duration lease_{};
    std::time_t first_ = 0;
    std::time_t second_ = 0;
};

} // namespace

unsigned recent_seconds(Duration lease) {
    return whole_seconds(lease, 1);
}

std::time_t time_second(std::time_t now, Duration lease) {
    return now + whole_seconds(lease, 2);
}

std::unique_ptr<LeaseSwitch> make_lease_switch(rules::LeaseBy by, std::vector<GateFamily>& families) {
    if (by == rules::LeaseBy::recent)
        return std::make_unique<RecentSwitch>(families);
    return std::make_unique<TimeSwitch>(families);
}

} // namespace syngate
