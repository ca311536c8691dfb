// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/turns.hpp"

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr std::uint64_t short_turn_ns = 100'000; // the lower bound in the kernel's __setparam_fair()

// struct sched_attr of linux/sched/types.h, first version: that header and glibc's sched.h exclude each other
// on Debian 12.
struct SchedulingAttributes {
    std::uint32_t size;
    std::uint32_t policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime; // ns
    std::uint64_t deadline;
    std::uint64_t period;
};
static_assert(sizeof(SchedulingAttributes) == 48);

// Of a task that is gone, or that another policy schedules, nothing changes. turn_ns 0: the kernel's own.
void set_turns(pid_t task, std::uint64_t turn_ns) {
    SchedulingAttributes attributes{};
    attributes.size = sizeof attributes;
    if (::syscall(SYS_sched_getattr, task, &attributes, sizeof attributes, 0U) < 0 ||
        (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH))
        return;
    attributes.size = sizeof attributes;
    attributes.runtime = turn_ns;
    ::syscall(SYS_sched_setattr, task, &attributes, 0U);
}

} // namespace

void take_short_turns(pid_t process) {
    set_turns(process, short_turn_ns);
}

void take_usual_turns(const std::set<pid_t>& processes) {
    // Twice: a thread may have been made by one that was not reached yet.
    for (int pass = 0; pass < 2; ++pass)
        for (const pid_t process : processes) {
            std::error_code gone;
            for (const auto& thread :
                 std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process), gone))
                set_turns(static_cast<pid_t>(std::atoi(thread.path().filename().c_str())), 0);
        }
}

} // namespace syngate
