// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/path_watch.hpp"

#include "base/fd.hpp"

#include <array>
#include <cerrno>
#include <climits>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <list>
#include <map>
#include <set>
#include <spdlog/spdlog.h>
#include <string_view>
#include <sys/inotify.h>
#include <sys/stat.h>

namespace syngate {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t directory_events = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE |
                                           IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::uint32_t file_events = IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF;

// What is looked at in one directory.
struct Interest {
    bool all = false;            // every entry that is not an editor's own
    std::set<std::string> names; // these entries, whatever they are called
    bool operator==(const Interest&) const = default;
};

// What must be watched to notice a change of the paths, as the file system is now.
struct Plan {
    std::map<std::string, Interest> directories;
    std::set<std::string> files;
    bool operator==(const Plan&) const = default;
};

bool is_editors_own(std::string_view name) {
    return (name.starts_with(".") && name != "..data") || name.ends_with("~") || name.ends_with(".swp");
}

// Walks a path as the kernel does. Every symbolic link on the way, the last component, and the first missing
// one are watched by name in their directory, so that any of them can be swapped. Returns the real path;
// empty when it is missing.
std::string add_path(Plan& plan, const std::string& path) {
    std::list<std::string> left;
    const auto prepend = [&left](const std::string& text) {
        auto at = left.begin();
        for (const auto& part : fs::path(text))
            if (!part.empty() && part != "/" && part != ".")
                left.insert(at, part);
    };
    prepend(fs::absolute(path));
    fs::path directory("/");
    for (int links = 0; !left.empty();) {
        const std::string name = left.front();
        left.pop_front();
        if (name == "..") { // directory is real: no link is in it
            directory = directory.parent_path();
            continue;
        }
        const fs::path here = directory / name;
        struct stat info {};
        const bool missing = lstat(here.c_str(), &info) < 0;
        const bool link = !missing && S_ISLNK(info.st_mode);
        if (missing || link || left.empty())
            plan.directories[directory.native()].names.insert(name);
        if (missing || (link && ++links > 40))
            return {};
        if (!link) {
            directory = here;
            continue;
        }
        std::array<char, PATH_MAX> target{};
        const ssize_t n = readlink(here.c_str(), target.data(), target.size());
        if (n <= 0)
            return {};
        const std::string text(target.data(), static_cast<std::size_t>(n));
        prepend(text);
        if (text.starts_with("/"))
            directory = fs::path("/");
    }
    return directory.native();
}

void add_file(Plan& plan, const std::string& path) {
    // The file itself too: a bind-mounted one is written through another directory.
    if (const std::string real = add_path(plan, path); !real.empty())
        plan.files.insert(real);
}

// Mounted over the entry of its directory, as containers have single files: the directory sees no change of
// it.
bool is_mounted(const fs::path& path) {
    struct statx info {};
    return statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &info) == 0 &&
           (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

Plan make_plan(const std::vector<std::string>& paths) {
    Plan plan;
    for (const auto& path : paths) {
        std::error_code error;
        if (!fs::is_directory(path, error)) {
            add_file(plan, path);
            continue;
        }
        const std::string real = add_path(plan, path);
        if (real.empty())
            continue;
        plan.directories[real].all = true;
        for (fs::directory_iterator entry(real, error), end; !error && entry != end; entry.increment(error))
            if (!is_editors_own(entry->path().filename().native()) &&
                !fs::is_directory(entry->path(), error) &&
                (entry->is_symlink(error) || is_mounted(entry->path())))
                add_file(plan, entry->path());
    }
    return plan;
}

} // namespace

struct PathWatch::Impl {
    Loop& loop;
    std::vector<std::string> paths;
    Duration quiet;
    std::function<void()> changed;
    Fd inotify;
    Source on_events;
    Source timer;
    std::map<int, Interest> watches; // by watch descriptor; of a file: no interest in names
    Plan plan;

    explicit Impl(Loop& l) : loop(l) {}

    Result<> add(const std::string& path, std::uint32_t events, const Interest& interest,
                 std::map<int, Interest>& added) {
        const int wd = inotify_add_watch(inotify.get(), path.c_str(), events);
        if (wd >= 0) {
            added[wd].all |= interest.all;
            added[wd].names.insert(interest.names.begin(), interest.names.end());
            return {};
        }
        if (errno == ENOENT || errno == ENOTDIR)
            return {}; // went meanwhile: the next plan knows
        const int code = errno;
        const std::string what = fmt::format("cannot watch '{}' for changes", path);
        if (code == ENOSPC)
            return failure(Exit::failed,
                           what + ": too many inotify watches; raise fs.inotify.max_user_watches", code);
        if (code == EACCES)
            return failure(Exit::failed, what + ": Permission denied; let syngate's user read it", code);
        return system_failure(what, code);
    }

    Result<> install(const Plan& wanted) {
        std::map<int, Interest> added;
        for (const auto& [directory, interest] : wanted.directories)
            if (const auto result = add(directory, directory_events, interest, added); !result)
                return result;
        for (const auto& file : wanted.files)
            if (const auto result = add(file, file_events, {}, added); !result)
                return result;
        for (const auto& [wd, interest] : watches)
            if (!added.contains(wd))
                inotify_rm_watch(inotify.get(), wd); // EINVAL when the kernel did it already
        watches = std::move(added);
        plan = wanted;
        return {};
    }

    // What was swapped between looking and watching shows in a second look.
    Result<> rebuild() {
        for (int round = 0; round < 4; ++round) {
            const Plan wanted = make_plan(paths);
            if (round > 0 && wanted == plan)
                break;
            if (const auto result = install(wanted); !result)
                return result;
        }
        return {};
    }

    [[nodiscard]] bool concerns_us(const inotify_event& event) const {
        if (event.mask & IN_Q_OVERFLOW)
            return true;
        const auto watch = watches.find(event.wd);
        if (watch == watches.end() || (event.mask & IN_IGNORED))
            return false;
        if (event.len == 0)
            return true; // the watched thing itself
        const std::string name(event.name);
        return watch->second.names.contains(name) || (watch->second.all && !is_editors_own(name));
    }

    void read_events() {
        alignas(inotify_event) std::array<char, 16384> buffer{};
        bool relevant = false;
        for (;;) {
            const ssize_t n = ::read(inotify.get(), buffer.data(), buffer.size());
            if (n <= 0)
                break;
            for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
                const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
                relevant = relevant || concerns_us(*event);
                at += sizeof(inotify_event) + event->len;
            }
        }
        if (!relevant)
            return;
        if (const auto result = rebuild(); !result)
            spdlog::warn("{}", result.error().message);
        auto started = loop.after(quiet, [this] { report(); });
        if (started)
            timer = std::move(*started);
        else
            report();
    }

    void report() {
        timer.reset();
        const auto call = changed; // it may destroy this watch
        call();
    }
};

PathWatch::PathWatch() = default;
PathWatch::~PathWatch() = default;

Result<std::unique_ptr<PathWatch>> PathWatch::start(Loop& loop, const std::vector<std::string>& paths,
                                                    Duration quiet, std::function<void()> changed) {
    std::unique_ptr<PathWatch> watch(new PathWatch);
    watch->impl_ = std::make_unique<Impl>(loop);
    Impl& impl = *watch->impl_;
    for (const auto& path : paths) {
        struct stat info {};
        if (stat(path.c_str(), &info) < 0)
            return system_failure(fmt::format("cannot watch '{}' for changes", path), errno, Exit::usage);
        impl.paths.push_back(fs::absolute(path)); // a later chdir must not matter
    }
    impl.quiet = quiet;
    impl.changed = std::move(changed);
    impl.inotify = Fd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!impl.inotify && errno == EMFILE)
        return failure(Exit::failed,
                       "cannot watch for changes: too many inotify instances or open files; raise "
                       "fs.inotify.max_user_instances",
                       EMFILE);
    if (!impl.inotify)
        return system_failure("cannot watch for changes (inotify_init1)", errno);
    if (const auto built = impl.rebuild(); !built)
        return std::unexpected(built.error());
    auto source = loop.on_io(impl.inotify.get(), EPOLLIN, [&impl](std::uint32_t) { impl.read_events(); });
    if (!source)
        return std::unexpected(source.error());
    impl.on_events = std::move(*source);
    return watch;
}

} // namespace syngate
