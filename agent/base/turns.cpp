// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/turns.hpp"

#include <cstdint>
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

// Of this thread: false if another policy schedules it, or the kernel does not say.
bool read(SchedulingAttributes& attributes) {
    attributes = {};
    attributes.size = sizeof attributes;
    return ::syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0U) == 0 &&
           (attributes.policy == SCHED_OTHER || attributes.policy == SCHED_BATCH);
}

// turn_ns 0: the kernel's own.
void set_turns(std::uint64_t turn_ns) {
    SchedulingAttributes attributes;
    if (!read(attributes))
        return;
    attributes.size = sizeof attributes;
    attributes.runtime = turn_ns;
    ::syscall(SYS_sched_setattr, 0, &attributes, 0U);
}

bool are_short() {
    SchedulingAttributes attributes;
    return read(attributes) && attributes.runtime == short_turn_ns;
}

} // namespace

void take_short_turns() {
    set_turns(short_turn_ns);
}

UsualTurns::UsualTurns() : were_short_(are_short()) {
    if (were_short_)
        set_turns(0);
}

UsualTurns::~UsualTurns() {
    if (were_short_)
        set_turns(short_turn_ns);
}

} // namespace syngate
