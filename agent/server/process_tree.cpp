// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/process_tree.hpp"

#include "base/fd.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace syngate {
namespace {

struct CloseDirectory {
    void operator()(DIR* directory) const { closedir(directory); }
};
using Directory = std::unique_ptr<DIR, CloseDirectory>;

template <class Number> std::optional<Number> number_in(std::string_view text) {
    Number number{};
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || rest != text.data() + text.size())
        return std::nullopt;
    return number;
}

struct Process {
    pid_t parent = 0;
    pid_t group = 0;
    bool ended = false; // a zombie
};

// Empty when the process has gone.
std::optional<Process> read_process(pid_t pid) {
    const Fd fd(open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return std::nullopt;
    std::array<char, 1024> buffer{};
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size() - 1);
    if (n <= 0)
        return std::nullopt;
    // "PID (NAME) STATE PARENT GROUP ...": the name may hold blanks and parentheses.
    const std::string_view text(buffer.data(), static_cast<std::size_t>(n));
    const std::size_t name_end = text.rfind(')');
    if (name_end == text.npos)
        return std::nullopt;
    char state = 0;
    Process process;
    if (std::sscanf(buffer.data() + name_end + 1, " %c %d %d", &state, &process.parent, &process.group) != 3)
        return std::nullopt;
    process.ended = state == 'Z' || state == 'X';
    return process;
}

bool has_ended(pid_t pid) {
    const auto process = read_process(pid);
    return !process || process->ended;
}

std::unexpected<Error> cannot_look(pid_t pid, int code) {
    if (code == EACCES || code == EPERM)
        return failure(
            Exit::impossible,
            fmt::format("cannot see which sockets process {} holds (/proc/{}/fd): {}; run syngate as "
                        "the server's user or give it CAP_SYS_PTRACE",
                        pid, pid, std::strerror(code)),
            code);
    return system_failure(fmt::format("cannot see which sockets process {} holds (/proc/{}/fd)", pid, pid),
                          code);
}

bool is_gone(int code) {
    return code == ENOENT || code == ESRCH;
}

// Calls `each` with the name and the target of every descriptor.
template <class Each> Result<> for_each_descriptor(pid_t pid, Each each) {
    const Directory directory(opendir(fmt::format("/proc/{}/fd", pid).c_str()));
    if (!directory) {
        const int code = errno;
        // The kernel gives a zombie's entries to root: that is no want of rights.
        if (is_gone(code) || has_ended(pid))
            return {};
        return cannot_look(pid, code);
    }
    while (const dirent* entry = readdir(directory.get())) {
        std::array<char, 64> target{};
        const ssize_t n = readlinkat(dirfd(directory.get()), entry->d_name, target.data(), target.size());
        if (n < 0) {
            const int code = errno;
            // EINVAL: "." and "..". Closed meanwhile: passed over.
            if (code == EINVAL || is_gone(code))
                continue;
            if (has_ended(pid))
                return {};
            return cannot_look(pid, code);
        }
        each(entry->d_name, std::string_view(target.data(), static_cast<std::size_t>(n)));
    }
    return {};
}

Result<> add_socket_inodes(pid_t pid, std::set<std::uint32_t>& inodes) {
    return for_each_descriptor(pid, [&](const char*, std::string_view target) {
        if (!target.starts_with("socket:[") || !target.ends_with("]"))
            return;
        target.remove_prefix(8);
        target.remove_suffix(1);
        if (const auto inode = number_in<std::uint32_t>(target))
            inodes.insert(*inode);
    });
}

} // namespace

std::set<pid_t> process_tree(pid_t root) {
    std::map<pid_t, Process> processes;
    const Directory directory(opendir("/proc"));
    while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
        const auto pid = number_in<pid_t>(entry->d_name);
        if (!pid)
            continue;
        if (const auto process = read_process(*pid))
            processes[*pid] = *process;
    }
    std::multimap<pid_t, pid_t> children;
    std::vector<pid_t> open{root};
    for (const auto& [pid, process] : processes) {
        children.emplace(process.parent, pid);
        if (process.group == root)
            open.push_back(pid);
    }
    std::set<pid_t> seen;
    while (!open.empty()) {
        const pid_t pid = open.back();
        open.pop_back();
        if (!processes.contains(pid) || !seen.insert(pid).second)
            continue;
        const auto [first, last] = children.equal_range(pid);
        for (auto it = first; it != last; ++it)
            open.push_back(it->second);
    }
    std::erase_if(seen, [&](pid_t pid) { return processes[pid].ended; });
    return seen;
}

Result<std::set<std::uint32_t>> socket_inodes(const std::set<pid_t>& processes) {
    std::set<std::uint32_t> inodes;
    for (const pid_t pid : processes)
        if (const auto added = add_socket_inodes(pid, inodes); !added)
            return std::unexpected(added.error());
    return inodes;
}

std::optional<std::set<std::uint32_t>> polled_inodes(const std::set<pid_t>& processes) {
    std::set<std::uint32_t> inodes;
    bool polls = false;
    for (const pid_t pid : processes)
        (void)for_each_descriptor(pid, [&](const char* descriptor, std::string_view target) {
            if (target != "anon_inode:[eventpoll]")
                return;
            polls = true;
            // "tfd: 6 events: 2019 data: 6 pos:0 ino:3a1 sdev:8", ino in hexadecimal: proc_pid_fdinfo(5)
            std::ifstream watched(fmt::format("/proc/{}/fdinfo/{}", pid, descriptor));
            for (std::string line; std::getline(watched, line);)
                if (const std::size_t at = line.find(" ino:"); line.starts_with("tfd:") && at != line.npos)
                    inodes.insert(
                        static_cast<std::uint32_t>(std::strtoul(line.c_str() + at + 5, nullptr, 16)));
        });
    return polls ? std::optional(inodes) : std::nullopt;
}

bool handles_signal(pid_t process, int signal) {
    std::ifstream status(fmt::format("/proc/{}/status", process));
    std::uint64_t caught = 0;
    std::uint64_t blocked = 0;
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("SigCgt:"))
            caught = std::strtoull(line.c_str() + 7, nullptr, 16);
        if (line.starts_with("SigBlk:"))
            blocked = std::strtoull(line.c_str() + 7, nullptr, 16);
    }
    return ((caught & ~blocked) >> (signal - 1) & 1) != 0;
}

} // namespace syngate
