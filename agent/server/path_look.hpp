// SPDX-License-Identifier: GPL-2.0-or-later
// What must be watched to notice a change of files and directories: a look at the file system as it is now.
#pragma once

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
    bool all = false;            // every entry that is not an editor's own
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

// What changes here is no change: drafts and backups of editors, and what Kubernetes hides (the files of a
// volume are reached by its link ..data).
bool is_editors_own(std::string_view name);

// paths: absolute, files or directories. A directory is looked at with those below it, nearest first, also
// where a symbolic link leads to them (but not to where it came from).
WatchPlan plan_watch(const std::vector<std::string>& paths);

} // namespace syngate
