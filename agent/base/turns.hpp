// SPDX-License-Identifier: GPL-2.0-or-later
// How long this process keeps a processor that others wait for. On a busy machine an agent or a configuration
// check that takes whole turns (milliseconds) is what clients of the serving one notice.
#pragma once

namespace syngate {

// Turns of 100 us, the shortest that the kernel takes, for this process and whatever it starts from now on;
// its share of the processors stays. Linux 6.12 (EEVDF with a slice a task, sched_setattr(2)); before,
// nothing changes.
void take_short_turns();

// What is started in its lifetime has the kernel's own turns. Another task's could not be given back later:
// that takes CAP_SYS_NICE.
class UsualTurns {
public:
    UsualTurns();
    ~UsualTurns();
    UsualTurns(const UsualTurns&) = delete;
    UsualTurns& operator=(const UsualTurns&) = delete;

private:
    bool were_short_;
};

} // namespace syngate
