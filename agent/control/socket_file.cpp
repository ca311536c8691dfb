// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/socket_file.hpp"

#include "base/clock.hpp"
#include "control/unix_socket.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr Duration lock_patience = std::chrono::seconds(1);

Result<void> make_directory(const std::filesystem::path& directory) {
    if (directory.empty() || ::mkdir(directory.c_str(), 0700) == 0)
        return {};
    if (errno == ENOENT && directory.has_relative_path()) {
        if (const auto parent = make_directory(directory.parent_path()); !parent)
            return parent;
        if (::mkdir(directory.c_str(), 0700) == 0)
            return {};
    }
    const int why = errno;
    std::error_code ignored;
    if (why == EEXIST && std::filesystem::is_directory(directory, ignored))
        return {};
    return system_failure(fmt::format("cannot make the control socket's directory '{}' (choose another path "
                                      "or make it yourself)",
                                      directory.string()),
                          why);
}

// Where everybody may write, as in a Kubernetes emptyDir, everybody could put another directory in the place
// of the control socket's, and answer in the agent's name. In a sticky directory nobody can.
Result<void> make_safe(const std::filesystem::path& directory) {
    std::error_code error;
    const auto whole = std::filesystem::absolute(directory.empty() ? "." : directory, error);
    struct stat inner {};
    for (std::filesystem::path path = whole; !error; path = path.parent_path()) {
        struct stat status {};
        if (::stat(path.c_str(), &status) < 0)
            return system_failure(
                fmt::format("cannot look at the control socket's directory '{}'", path.string()), errno);
        const bool shared = (status.st_mode & S_IWOTH) != 0;
        const bool known = inner.st_uid == 0 || inner.st_uid == ::geteuid();
        if (shared && path != whole && !known)
            return failure(
                Exit::failed,
                fmt::format("uid {} has made a directory of the control socket's path in '{}', where "
                            "everybody may: remove it, or choose another path",
                            inner.st_uid, path.string()),
                EPERM);
        if (shared && (status.st_mode & S_ISVTX) == 0) {
            if (::chmod(path.c_str(), (status.st_mode & 07777) | S_ISVTX) < 0)
                return system_failure(fmt::format("everybody may remove the control socket's directory from "
                                                  "'{}', and it cannot be made sticky (`chmod +t`)",
                                                  path.string()),
                                      errno);
            spdlog::info("'{}', where everybody may write, is sticky now (chmod +t): nobody else can replace "
                         "the control socket",
                         path.string());
        }
        inner = status;
        if (path == path.root_path())
            break;
    }
    return {};
}

// Only one agent at a time looks at a socket file, finds it stale and replaces it. The lock is on the
// directory, so that no file of ours is left, and is held for microseconds.
Result<Fd> lock_directory(const std::filesystem::path& directory) {
    const std::string name = directory.empty() ? "." : directory.string();
    Fd fd(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd)
        return system_failure(fmt::format("cannot open the control socket's directory '{}'", name), errno);
    const Time deadline = Clock::now() + lock_patience;
    while (::flock(fd.get(), LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return system_failure(fmt::format("cannot lock the control socket's directory '{}'", name),
                                  errno);
        if (Clock::now() >= deadline)
            return failure(Exit::busy,
                           fmt::format("the control socket's directory '{}' has been locked by another "
                                       "process for {}: see `lslocks`, or choose a directory of your own",
                                       name, format_duration(lock_patience)),
                           EWOULDBLOCK);
        ::poll(nullptr, 0, 1); // flock(2) has no deadline
    }
    return fd;
}

// Removes the socket file of a dead agent; nothing else is ever removed.
Result<void> clear_stale(const std::string& path, const UnixAddress& address) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) < 0)
        return errno == ENOENT
                   ? Result<void>{}
                   : system_failure(fmt::format("cannot look at the control socket '{}'", path), errno);
    if (!S_ISSOCK(status.st_mode))
        return failure(Exit::failed,
                       fmt::format("'{}' is there already and is no socket: choose another path for the "
                                   "control socket, or remove it",
                                   path),
                       EEXIST);
    const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe)
        return system_failure("cannot make a UNIX socket", errno);
    if (::connect(probe.get(), address.get(), address.length) == 0 || errno == EAGAIN)
        return failure(Exit::busy,
                       fmt::format("a living agent answers at '{}': stop it, or choose another path", path),
                       EADDRINUSE);
    if (errno != ECONNREFUSED)
        return system_failure(fmt::format("cannot tell whether an agent lives at '{}'", path), errno);
    if (::unlink(path.c_str()) < 0 && errno != ENOENT)
        return system_failure(fmt::format("cannot remove the dead agent's socket '{}'", path), errno);
    return {};
}

} // namespace

Result<Fd> listen_at(const std::string& path, unsigned backlog) {
    const auto address = path_address(path);
    if (!address)
        return std::unexpected(address.error());
    const auto directory = std::filesystem::path(path).parent_path();
    if (const auto made = make_directory(directory); !made)
        return std::unexpected(made.error());
    if (const auto safe = make_safe(directory); !safe)
        return std::unexpected(safe.error());
    const auto lock = lock_directory(directory);
    if (!lock)
        return std::unexpected(lock.error());
    if (const auto clear = clear_stale(path, *address); !clear)
        return std::unexpected(clear.error());

    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd)
        return system_failure("cannot make a UNIX socket", errno);
    // bind(2) makes the file with the mode that the descriptor has: it never exists with a wider one.
    if (::fchmod(fd.get(), 0600) < 0)
        return system_failure(fmt::format("cannot set the mode of the control socket '{}'", path), errno);
    if (::bind(fd.get(), address->get(), address->length) < 0)
        return system_failure(fmt::format("cannot bind the control socket '{}'", path), errno,
                              errno == EADDRINUSE ? Exit::busy : Exit::failed);
    if (::listen(fd.get(), static_cast<int>(backlog)) < 0) {
        const int why = errno;
        ::unlink(path.c_str());
        return system_failure(fmt::format("cannot listen on the control socket '{}'", path), why);
    }
    return fd;
}

std::vector<std::string> sweep_sockets(const std::string& directory, const std::string& prefix) {
    std::vector<std::string> removed;
    std::error_code error;
    std::filesystem::directory_iterator entries(directory, error);
    if (error)
        return removed;
    // One that is bound but does not listen yet is not taken for a dead one: whoever makes it holds the lock.
    const auto lock = lock_directory(directory);
    if (!lock)
        return removed;
    for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
        const std::string path = entries->path().string();
        const std::string name = entries->path().filename().string();
        const auto address = path_address(path);
        if (name.starts_with(prefix) && name.ends_with(".sock") && address && clear_stale(path, *address))
            removed.push_back(path);
    }
    return removed;
}

} // namespace syngate
