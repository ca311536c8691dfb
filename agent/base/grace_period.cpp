// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/grace_period.hpp"

#include "base/clock.hpp"
#include "base/fd.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <future>
#include <linux/magic.h>
#include <linux/membarrier.h>
#include <optional>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <string>
#include <string_view>
#include <sys/syscall.h>
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

// Of "0-3,5\n".
std::optional<cpu_set_t> parse_cpus(std::string_view list) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    const char* at = list.data();
    const char* const end = at + list.size();
    while (at != end && *at != '\n') {
        unsigned first = 0, last = 0;
        auto read = std::from_chars(at, end, first);
        last = first;
        if (read.ec == std::errc() && read.ptr != end && *read.ptr == '-')
            read = std::from_chars(read.ptr + 1, end, last);
        if (read.ec != std::errc() || last >= CPU_SETSIZE)
            return {};
        for (unsigned cpu = first; cpu <= last; ++cpu)
            CPU_SET(cpu, &cpus);
        at = read.ptr != end && *read.ptr == ',' ? read.ptr + 1 : read.ptr;
        if (at == read.ptr && at != end && *at != '\n')
            return {};
    }
    return cpus;
}

// As the kernel says it, not a file system that shows a container its own CPUs only (lxcfs).
std::optional<cpu_set_t> online_cpus() {
    const Fd file(::open("/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC));
    struct statfs system {};
    std::array<char, 4096> list{};
    if (!file || ::fstatfs(file.get(), &system) != 0 || system.f_type != SYSFS_MAGIC)
        return {};
    const auto length = ::read(file.get(), list.data(), list.size());
    return length > 0 ? parse_cpus({list.data(), static_cast<std::size_t>(length)}) : std::nullopt;
}

bool go_to(pid_t thread, int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return ::sched_setaffinity(thread, sizeof one, &one) == 0;
}

// Of the calling thread, which stays on the last one.
bool visit(const cpu_set_t& cpus, Time deadline) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &cpus) && (Clock::now() > deadline || !go_to(0, cpu) || ::sched_getcpu() != cpu))
            return false;
    return true;
}

// By a thread of its own: what CPUs the agent, and with it a server, may use is not touched. It may be sent
// to a CPU that a real-time task keeps, and is then taken to where the caller runs.
bool visit_before(Time deadline, const cpu_set_t& cpus) {
    std::promise<bool> promise;
    std::future<bool> visited = promise.get_future();
    std::atomic<pid_t> id = 0;
    std::jthread visitor([&] {
        id = ::gettid();
        promise.set_value(visit(cpus, deadline));
    });
    const auto take_home = [&id] {
        if (const pid_t thread = id; thread != 0)
            go_to(thread, ::sched_getcpu());
    };
    for (Time until = deadline; visited.wait_until(until) != std::future_status::ready;
         until = Clock::now() + std::chrono::milliseconds(1))
        take_home();
    take_home(); // it has to end there, too
    return visited.get();
}

} // namespace

bool run_on_every_cpu() {
    static const bool possible = !softirqs_can_be_preempted() && !some_are_isolated();
    const auto online = possible ? online_cpus() : std::nullopt;
    cpu_set_t allowed;
    // Not where the user or a cpuset does not want it.
    if (!online || ::sched_getaffinity(0, sizeof allowed, &allowed) != 0 || !CPU_EQUAL(&allowed, &*online))
        return false;
    try {
        return visit_before(Clock::now() + longer_than_a_grace_period, *online);
    } catch (const std::system_error& e) {
        spdlog::debug("no thread to run on every CPU: {}", e.what());
        return false;
    }
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
