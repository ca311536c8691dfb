// SPDX-License-Identifier: GPL-2.0-or-later
// A look at files and directories as they are now: what is there, and what must be watched to notice a
// change.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace syngate {

constexpr int watch_depth = 8;                 // of directories below one that is named
constexpr std::size_t watch_directories = 256; // in all; those that are named are watched in any case

// What is looked at in one directory.
struct WatchInterest {
    bool all = false;            // every entry that may be configuration
    std::set<std::string> names; // these entries, whatever they are called
    bool operator==(const WatchInterest&) const = default;
};

struct WatchPlan {
    std::map<std::string, WatchInterest> directories;
    std::set<std::string> files; // regular ones that change without their directory, or in another one
    std::set<std::string>
        named; // of both: what the paths themselves lead by. Without them nothing is noticed
    std::map<std::string, std::string> left_out; // directories that are not looked into, and why
    bool operator==(const WatchPlan&) const = default;
};

// What tells a file or a symbolic link from another one of the same name.
struct FileMark {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t size = 0;
    std::int64_t seconds = 0; // last written to
    std::uint32_t nanoseconds = 0;
    std::string target; // of a link
    bool operator==(const FileMark&) const = default;
};

struct PathLook {
    WatchPlan plan;
    // Regular files and links by their path. A directory is no change, nor is a socket, a FIFO or a device:
    // servers make these anew at each start.
    std::map<std::string, FileMark> seen;
};

// In a watched directory this is no configuration: drafts and backups of editors, pid files, and what
// Kubernetes hides (the files of a volume are reached by its link ..data).
bool is_no_configuration(std::string_view name);

bool is_regular(const std::string& path); // a link is not

// paths: absolute, files or directories. A directory is looked at with those below it, nearest first, also
// where a symbolic link leads to them (but not to where it came from).
PathLook look_at_paths(const std::vector<std::string>& paths);

} // namespace syngate
