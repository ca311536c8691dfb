// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/path_look.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <deque>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <list>
#include <optional>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate {
namespace {

namespace fs = std::filesystem;

// Without following a link, and without mounting anything.
std::optional<struct statx> entry_at(const std::string& path) {
    struct statx info {};
    if (statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &info) < 0)
        return std::nullopt;
    return info;
}

std::string link_target(const std::string& path) {
    std::array<char, PATH_MAX> target{};
    const ssize_t n = readlink(path.c_str(), target.data(), target.size());
    return n <= 0 ? std::string() : std::string(target.data(), static_cast<std::size_t>(n));
}

// Mounted over the entry of its directory, as containers have single files: the directory sees no change of
// it.
bool is_mounted(const struct statx& info) {
    return (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

FileMark mark_of(const std::string& path, const struct statx& info) {
    return {.device = (std::uint64_t{info.stx_dev_major} << 32) | info.stx_dev_minor,
            .inode = info.stx_ino,
            .size = info.stx_size,
            .seconds = info.stx_mtime.tv_sec,
            .nanoseconds = info.stx_mtime.tv_nsec,
            .target = S_ISLNK(info.stx_mode) ? link_target(path) : std::string()};
}

bool is_within(const std::string& path, const std::string& directory) {
    return directory == "/" || path == directory || path.starts_with(directory + "/");
}

std::string join(const std::string& directory, const std::string& name) {
    return directory == "/" ? "/" + name : directory + "/" + name;
}

class Looker {
public:
    PathLook look(const std::vector<std::string>& paths) {
        for (const auto& path : paths) {
            const auto found = follow(path, true);
            if (found && S_ISDIR(found->info.stx_mode)) {
                roots_.push_back(found->path);
                add_directory(found->path, 0);
            } else if (found) {
                add_file(*found, true);
            }
        }
        for (; !left_.empty(); left_.pop_front())
            look_into(left_.front());
        return {std::move(plan_), std::move(seen_)};
    }

private:
    struct Found {
        std::string path; // no link is in it
        struct statx info;
    };
    struct Directory {
        std::string path;
        int depth; // below the one that is named
    };

    // Walks a path as the kernel does. Every symbolic link on the way, the last component, and the first
    // missing one are watched by name in their directory, so that any of them can be swapped.
    std::optional<Found> follow(const std::string& path, bool named) {
        std::list<std::string> left;
        const auto prepend = [&left](const std::string& text) {
            auto at = left.begin();
            for (const auto& part : fs::path(text))
                if (!part.empty() && part != "/" && part != ".")
                    left.insert(at, part);
        };
        prepend(path);
        std::string directory = "/";
        for (int links = 0; !left.empty();) {
            const std::string name = left.front();
            left.pop_front();
            if (name == "..") { // directory is real: no link is in it
                directory = fs::path(directory).parent_path();
                continue;
            }
            const std::string here = join(directory, name);
            const auto info = entry_at(here);
            const bool link = info && S_ISLNK(info->stx_mode);
            if (!info || link || left.empty()) {
                plan_.directories[directory].names.insert(name);
                if (named)
                    plan_.named.insert(directory);
            }
            if (!info || (link && ++links > 40))
                return std::nullopt;
            if (!link) {
                directory = here;
                continue;
            }
            const FileMark& mark = seen_[here] = mark_of(here, *info);
            if (mark.target.empty())
                return std::nullopt;
            prepend(mark.target);
            if (mark.target.starts_with("/"))
                directory = "/";
        }
        const auto info = entry_at(directory);
        return info ? std::optional(Found{directory, *info}) : std::nullopt;
    }

    // The file itself too: a bind-mounted one is written through another directory. Of what is not regular
    // (a device, a socket) nothing is a change.
    void add_file(const Found& found, bool named) {
        if (!S_ISREG(found.info.stx_mode))
            return;
        seen_[found.path] = mark_of(found.path, found.info);
        plan_.files.insert(found.path);
        if (named)
            plan_.named.insert(found.path);
    }

    void add_directory(const std::string& path, int depth) {
        if (const auto known = plan_.directories.find(path);
            known != plan_.directories.end() && known->second.all)
            return;
        if (depth > watch_depth) {
            plan_.left_out[path] = fmt::format("more than {} directories deep", watch_depth);
        } else if (depth > 0 && count_ >= watch_directories) {
            plan_.left_out[path] = fmt::format("more than {} directories", watch_directories);
        } else {
            plan_.directories[path].all = true;
            if (depth == 0)
                plan_.named.insert(path);
            ++count_;
            left_.push_back({path, depth});
        }
    }

    void look_into(const Directory& directory) {
        std::vector<std::string> names;
        std::error_code error;
        for (fs::directory_iterator entry(directory.path, error), end; !error && entry != end;
             entry.increment(error))
            names.push_back(entry->path().filename());
        std::ranges::sort(names); // so that two looks leave out the same
        for (const auto& name : names)
            if (!is_no_configuration(name))
                look_at(join(directory.path, name), name == "..data", directory.depth);
    }

    void look_at(const std::string& path, bool hidden, int depth) {
        const auto info = entry_at(path);
        if (!info)
            return;
        if (S_ISDIR(info->stx_mode))
            add_directory(path, depth + 1);
        else if (S_ISREG(info->stx_mode) || S_ISLNK(info->stx_mode))
            seen_[path] = mark_of(path, *info);
        if (S_ISREG(info->stx_mode) && is_mounted(*info))
            add_file({path, *info}, false);
        else if (S_ISLNK(info->stx_mode) && !hidden)
            look_behind(path, depth);
    }

    // A link to where it stands, or further up, leads to nothing new.
    void look_behind(const std::string& link, int depth) {
        const auto found = follow(link, false);
        if (!found)
            return;
        if (!S_ISDIR(found->info.stx_mode))
            add_file(*found, false);
        else if (std::ranges::none_of(roots_,
                                      [&](const std::string& root) { return is_within(root, found->path); }))
            add_directory(found->path, depth + 1);
    }

    WatchPlan plan_;
    std::map<std::string, FileMark> seen_;
    std::vector<std::string> roots_;
    std::deque<Directory> left_;
    std::size_t count_ = 0;
};

} // namespace

bool is_no_configuration(std::string_view name) {
    return (name.starts_with(".") && name != "..data") || name.ends_with("~") || name.ends_with(".swp") ||
           name.ends_with(".pid");
}

bool is_regular(const std::string& path) {
    const auto info = entry_at(path);
    return info && S_ISREG(info->stx_mode);
}

PathLook look_at_paths(const std::vector<std::string>& paths) {
    return Looker().look(paths);
}

} // namespace syngate
