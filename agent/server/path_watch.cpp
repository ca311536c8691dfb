// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/path_watch.hpp"

#include "base/fd.hpp"
#include "server/path_look.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <map>
#include <spdlog/spdlog.h>
#include <string>
#include <sys/inotify.h>
#include <sys/stat.h>

namespace syngate {
namespace {

constexpr std::uint32_t directory_events = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE |
                                           IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr std::uint32_t file_events = IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF;

// What the log can bear of directories that are not watched.
constexpr std::size_t named_at_most = 5;

Error cannot_watch(const std::string& path, int code) {
    const std::string what = fmt::format("cannot watch '{}' for changes", path);
    if (code == ENOSPC)
        return {Exit::failed, what + ": too many inotify watches; raise fs.inotify.max_user_watches", code};
    if (code == EACCES)
        return {Exit::failed, what + ": Permission denied; let syngate's user read it", code};
    return system_failure(what, code).error();
}

std::string describe_left_out(const std::map<std::string, std::string>& left_out) {
    std::string text;
    std::size_t named = 0;
    for (const auto& [path, why] : left_out) {
        if (named == named_at_most)
            return text + fmt::format(", and in {} more", left_out.size() - named);
        text += fmt::format("{}'{}' ({})", named++ == 0 ? "" : ", ", path, why);
    }
    return text;
}

struct Watched {
    std::string path;
    WatchInterest interest; // none, if it is a file
};

} // namespace

struct PathWatch::Impl {
    Loop& loop;
    std::vector<std::string> paths;
    Duration quiet;
    std::function<void()> changed;
    Fd inotify;
    Source on_events;
    Source timer;
    std::map<int, Watched> watches; // by watch descriptor
    WatchPlan plan;
    std::map<std::string, FileMark> seen;      // by the last look,
    std::map<std::string, FileMark> reported;  // by the one before the last report
    bool written = false;                      // since then, a file was
    std::map<std::string, std::string> denied; // what the kernel refused to watch, and why
    bool said_what_is_left_out = false;

    explicit Impl(Loop& l) : loop(l) {}

    // What is only below a named directory, or behind a link in one, is left out where it cannot be watched.
    Result<> add(const std::string& path, std::uint32_t events, const WatchInterest& interest,
                 const WatchPlan& wanted, std::map<int, Watched>& added) {
        const int wd = inotify_add_watch(inotify.get(), path.c_str(), events);
        if (wd >= 0) {
            Watched& watched = added[wd];
            watched.path = path;
            watched.interest.all |= interest.all;
            watched.interest.names.insert(interest.names.begin(), interest.names.end());
            return {};
        }
        const int code = errno;
        if (code == ENOENT || code == ENOTDIR)
            return {}; // went meanwhile: the next plan knows
        if (wanted.named.contains(path))
            return std::unexpected(cannot_watch(path, code));
        denied[path] = std::strerror(code);
        return {};
    }

    Result<> install(WatchPlan wanted) {
        std::map<int, Watched> added;
        denied.clear();
        for (const auto& [directory, interest] : wanted.directories)
            if (const auto result = add(directory, directory_events, interest, wanted, added); !result)
                return result;
        for (const auto& file : wanted.files)
            if (const auto result = add(file, file_events, {}, wanted, added); !result)
                return result;
        for (const auto& [wd, watched] : watches)
            if (!added.contains(wd))
                inotify_rm_watch(inotify.get(), wd); // EINVAL when the kernel did it already
        watches = std::move(added);
        plan = std::move(wanted);
        return {};
    }

    // What was swapped between looking and watching shows in a second look.
    Result<> rebuild() {
        for (int round = 0; round < 4; ++round) {
            PathLook look = look_at_paths(paths);
            seen = std::move(look.seen);
            if (round > 0 && look.plan == plan)
                break;
            if (const auto result = install(std::move(look.plan)); !result)
                return result;
        }
        say_what_is_left_out();
        return {};
    }

    void say_what_is_left_out() {
        auto left_out = plan.left_out;
        left_out.insert(denied.begin(), denied.end());
        if (!left_out.empty() && !said_what_is_left_out)
            spdlog::warn("changes are not noticed in {}", describe_left_out(left_out));
        said_what_is_left_out = !left_out.empty();
    }

    struct Noticed {
        bool any = false;
        bool structure = false; // what is to be watched may be another now
        bool written = false;   // also one that looks as before: of the same size, in the same instant
    };

    [[nodiscard]] Noticed notice(const inotify_event& event) const {
        if (event.mask & IN_Q_OVERFLOW)
            return {true, true, true};
        const auto found = watches.find(event.wd);
        if (found == watches.end() || (event.mask & IN_IGNORED))
            return {};
        const auto& [path, interest] = found->second;
        const bool closed = event.mask & IN_CLOSE_WRITE;
        if (event.len == 0)
            return {true, false, closed}; // the watched thing itself
        const std::string name(event.name);
        const bool by_name = interest.names.contains(name);
        if (!by_name && (!interest.all || is_no_configuration(name)))
            return {};
        if (closed && !is_regular(path + "/" + name))
            return {}; // a pipe or a device; that a file has gone since, another event tells
        return {true, by_name || (event.mask & IN_ISDIR), closed};
    }

    // A new directory is watched at once, so that the quiet begins when it is filled.
    void read_events() {
        alignas(inotify_event) std::array<char, 16384> buffer{};
        Noticed all;
        for (;;) {
            const ssize_t n = ::read(inotify.get(), buffer.data(), buffer.size());
            if (n <= 0)
                break;
            for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
                const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
                const Noticed one = notice(*event);
                all.any |= one.any;
                all.structure |= one.structure;
                written |= one.written;
                at += sizeof(inotify_event) + event->len;
            }
        }
        if (!all.any)
            return;
        if (all.structure)
            rebuild_or_say();
        auto started = loop.after(quiet, [this] { report(); });
        if (started)
            timer = std::move(*started);
        else
            report();
    }

    void rebuild_or_say() {
        if (const auto result = rebuild(); !result)
            spdlog::warn("{}", result.error().message);
    }

    void report() {
        timer.reset();
        rebuild_or_say();
        if (!written && seen == reported)
            return; // what came has gone, or was no configuration, such as a server's own sockets
        written = false;
        reported = seen;
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
        impl.paths.push_back(std::filesystem::absolute(path)); // a later chdir must not matter
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
    impl.reported = impl.seen;
    auto source = loop.on_io(impl.inotify.get(), EPOLLIN, [&impl](std::uint32_t) { impl.read_events(); });
    if (!source)
        return std::unexpected(source.error());
    impl.on_events = std::move(*source);
    return watch;
}

} // namespace syngate
