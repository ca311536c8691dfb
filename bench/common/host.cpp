// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/host.hpp"

#include "base/fd.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <optional>
#include <sched.h>
#include <stdexcept>
#include <unistd.h>

namespace syngate::bench {

namespace {

Fd& host_proc() {
    static Fd fd;
    return fd;
}

std::string content(const std::string& path) {
    const Fd fd(::openat(host_proc().get(), path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[1024];
    const auto size = fd ? ::read(fd.get(), text, sizeof text) : -1;
    return size > 0 ? std::string(text, static_cast<std::size_t>(size)) : std::string();
}

double ticks() {
    return static_cast<double>(::sysconf(_SC_CLK_TCK));
}

// schedstat counts nanoseconds, where the kernel has it; stat counts ticks.
std::optional<double> seconds_of(const std::string& schedstat, const std::string& stat) {
    unsigned long long ns = 0;
    if (std::sscanf(schedstat.c_str(), "%llu", &ns) == 1)
        return static_cast<double>(ns) / 1e9;
    unsigned long user = 0;
    unsigned long system = 0;
    const auto name_end = stat.rfind(')');
    if (name_end == stat.npos ||
        std::sscanf(stat.c_str() + name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                    &user, &system) != 2)
        return {};
    return static_cast<double>(user + system) / ticks();
}

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

} // namespace

void keep_host_proc() {
    host_proc() = Fd(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

double kernel_thread_seconds(const std::string& name) {
    const int copy = ::openat(host_proc().get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* directory = copy < 0 ? nullptr : ::fdopendir(copy);
    if (directory == nullptr)
        throw std::runtime_error(fmt::format("cannot read the machine's /proc: {}", std::strerror(errno)));
    std::optional<double> sum;
    while (const dirent* entry = ::readdir(directory))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            content(std::string(entry->d_name) + "/comm").starts_with(name))
            sum = sum.value_or(0) + seconds_of(content(std::string(entry->d_name) + "/schedstat"),
                                               content(std::string(entry->d_name) + "/stat"))
                                        .value_or(0);
    ::closedir(directory);
    if (!sum)
        throw std::runtime_error(
            fmt::format("there is no kernel thread {}: /proc shows other namespaces' only", name));
    return *sum;
}

double process_seconds(pid_t pid) {
    const auto used = seconds_of(first_line(fmt::format("/proc/{}/schedstat", pid)),
                                 first_line(fmt::format("/proc/{}/stat", pid)));
    if (!used)
        throw std::runtime_error(fmt::format("process {} is gone", pid));
    return *used;
}

void use_one_cpu() {
    cpu_set_t may{}, one{};
    if (::sched_getaffinity(0, sizeof may, &may) < 0)
        throw std::runtime_error(fmt::format("cannot read the processors to use: {}", std::strerror(errno)));
    int last = CPU_SETSIZE - 1; // the first ones serve most interrupts
    while (last > 0 && !CPU_ISSET(last, &may))
        --last;
    CPU_SET(last, &one);
    if (::sched_setaffinity(0, sizeof one, &one) < 0)
        throw std::runtime_error(fmt::format("cannot stay on processor {}: {}", last, std::strerror(errno)));
}

double busy_seconds() {
    std::ifstream file("/proc/stat");
    std::string name;
    double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
    file >> name >> user >> nice >> system >> idle >> iowait >> irq >> softirq;
    return (user + nice + system + irq + softirq) / ticks();
}

} // namespace syngate::bench
