// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/machine.hpp"

#include "netns/process.hpp"

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fmt/format.h>
#include <fstream>
#include <sys/utsname.h>
#include <unistd.h>

namespace syngate::bench {

namespace {

// Behind the first line of the file that begins so; empty if there is none.
std::string line_of(const char* path, std::string_view begin) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(begin)) {
            const auto text = line.find_first_not_of(" \t:=\"", begin.size());
            return text == line.npos ? "" : line.substr(text, line.find('"', text) - text);
        }
    return {};
}

bool is_virtual() {
    return line_of("/proc/cpuinfo", "flags").find(" hypervisor") != std::string::npos;
}

// The first line that the program says; empty if it is not here.
std::string version(const live::Argv& argv) {
    try {
        const auto result = live::run(argv);
        const auto text = result.out + result.err;
        return text.substr(0, text.find('\n'));
    } catch (const std::exception&) {
        return {};
    }
}

std::string today() {
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%d", &utc);
    return text;
}

double load_average() {
    double load = 0;
    std::ifstream("/proc/loadavg") >> load;
    return load;
}

} // namespace

nlohmann::json machine() {
    utsname system{};
    ::uname(&system);
    const char* commit = std::getenv("SYNGATE_BENCH_COMMIT");
    const double gib = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
                       static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1024. * 1024 * 1024);
    return {{"processor", line_of("/proc/cpuinfo", "model name")},
            {"processors", ::sysconf(_SC_NPROCESSORS_ONLN)},
            {"virtual", is_virtual()},
            {"memory_gib", gib},
            {"kernel", system.release},
            {"architecture", system.machine},
            {"distribution", line_of("/etc/os-release", "PRETTY_NAME")},
            {"date", today()},
            {"load_average", load_average()},
            {"commit", commit == nullptr ? "" : commit},
            {"versions",
             {{"syngate", version({live::built("syngate"), "--version"})},
              {"HAProxy", version({"haproxy", "-v"})},
              {"nginx", version({"nginx", "-v"})},
              {"iptables", version({"iptables", "-V"})},
              {"nftables", version({"nft", "--version"})},
              {"xdp-filter", version({"dpkg-query", "-W", "-f", "${Package} ${Version}", "xdp-tools"})}}}};
}

} // namespace syngate::bench
