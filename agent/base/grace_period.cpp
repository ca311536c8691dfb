// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/grace_period.hpp"

#include "base/clock.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <string>
#include <string_view>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <system_error>
#include <thread>
#include <unistd.h>

namespace syngate {
namespace {

// A grace period takes 4 to 12 ms where the timer ticks 250 times a second.
constexpr auto longer_than_a_grace_period = std::chrono::milliseconds(10);

bool softirqs_can_be_preempted() {
    utsname kernel{};
    return ::uname(&kernel) != 0 || std::string_view(kernel.version).contains("PREEMPT_RT");
}

// Of the kernel, not of a file system that shows a container its own CPUs only (lxcfs).
bool sysfs_tells_cpus() {
    struct statfs system {};
    return ::statfs("/sys/devices/system/cpu/online", &system) == 0 && system.f_type == SYSFS_MAGIC;
}

// CPUs that the user keeps for a task that polls there, maybe at a real-time priority.
bool some_are_isolated() {
    for (const char* file : {"/sys/devices/system/cpu/isolated", "/sys/devices/system/cpu/nohz_full"}) {
        std::string cpus;
        std::ifstream(file) >> cpus;
        if (!cpus.empty() && cpus != "(null)")
            return true;
    }
    return false;
}

// Of the calling thread, which stays on the last one.
bool visit_every_cpu() {
    cpu_set_t all, one;
    std::memset(&all, 0xff, sizeof all);
    // The kernel takes from these what is online and what the cpuset allows.
    if (::sched_setaffinity(0, sizeof all, &all) != 0 || ::sched_getaffinity(0, sizeof all, &all) != 0 ||
        CPU_COUNT(&all) != ::get_nprocs())
        return false;
    const Time deadline = Clock::now() + longer_than_a_grace_period;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        // Returns on that CPU.
        if (::sched_setaffinity(0, sizeof one, &one) != 0 || Clock::now() > deadline)
            return false;
    }
    return true;
}

} // namespace

bool run_on_every_cpu() {
    static const bool possible = !softirqs_can_be_preempted() && sysfs_tells_cpus() && !some_are_isolated();
    if (!possible)
        return false;
    bool done = false;
    try {
        // Its own thread: what CPUs the agent, and with it a server, may use is not touched.
        std::thread([&done] { done = visit_every_cpu(); }).join();
    } catch (const std::system_error& e) {
        spdlog::debug("no thread to run on every CPU: {}", e.what());
    }
    return done;
}

bool wait_for_grace_period() {
    if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0)
        return true;
    spdlog::debug("no grace period: {}", std::strerror(errno));
    return false;
}

void wait_for_packets_under_way() {
    if (!run_on_every_cpu())
        wait_for_grace_period();
}

} // namespace syngate
