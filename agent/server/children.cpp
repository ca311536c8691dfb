// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/children.hpp"

#include "base/fd.hpp"
#include "base/turns.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sstream>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr std::size_t output_kept = 8192;
// After SIGKILL only a process in an uninterruptible system call (a dead NFS server) stays.
constexpr Duration kill_grace = std::chrono::seconds(2);
constexpr Duration look_for_cancel_every = std::chrono::milliseconds(100); // a signal that nobody handles yet

enum class Input { ours, none };

ExitStatus decode(int status) {
    if (WIFSIGNALED(status))
        return {.signalled = true, .value = WTERMSIG(status)};
    return {.signalled = false, .value = WEXITSTATUS(status)};
}

std::string_view name_of(std::string_view assignment) {
    return assignment.substr(0, assignment.find('='));
}

std::vector<std::string> merged_environment(const std::vector<std::string>& extra) {
    std::vector<std::string> result;
    for (char** entry = environ; entry && *entry; ++entry) {
        bool replaced = false;
        for (const auto& assignment : extra)
            replaced = replaced || name_of(assignment) == name_of(*entry);
        if (!replaced)
            result.emplace_back(*entry);
    }
    result.insert(result.end(), extra.begin(), extra.end());
    return result;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (const auto& string : strings)
        result.push_back(const_cast<char*>(string.c_str()));
    result.push_back(nullptr);
    return result;
}

std::unexpected<Error> cannot_start(const std::string& program, int code) {
    const bool user_can_mend = code == ENOENT || code == EACCES || code == ENOTDIR || code == ENOEXEC;
    std::string message = fmt::format("cannot start '{}': {}", program, std::strerror(code));
    if (code == EACCES)
        message += "; make it executable (chmod +x), or give the server's path after --";
    else if (code == ENOEXEC)
        message += "; a script must begin with #! and its interpreter";
    else if (user_can_mend)
        message += "; give the server's path after --";
    return failure(user_can_mend ? Exit::usage : Exit::failed, std::move(message), code);
}

class SpawnPlan {
public:
    SpawnPlan() {
        posix_spawnattr_init(&attributes);
        posix_spawn_file_actions_init(&actions);
    }
    ~SpawnPlan() {
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
    }
    SpawnPlan(const SpawnPlan&) = delete;
    SpawnPlan& operator=(const SpawnPlan&) = delete;

    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
};

// These only fail for want of memory or on an invalid argument.
int fill(SpawnPlan& plan, const SpawnOptions& options, Input input) {
    sigset_t set;
    sigfillset(&set);
    int error = posix_spawnattr_setsigdefault(&plan.attributes, &set);
    sigemptyset(&set);
    if (!error)
        error = posix_spawnattr_setsigmask(&plan.attributes, &set);
    int flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    if (options.own_group)
        flags |= POSIX_SPAWN_SETPGROUP; // group 0, the default: the child's own pid
    if (!error)
        error = posix_spawnattr_setflags(&plan.attributes, static_cast<short>(flags));
    if (!error && options.output >= 0)
        error = posix_spawn_file_actions_adddup2(&plan.actions, options.output, STDOUT_FILENO);
    if (!error && options.output >= 0)
        error = posix_spawn_file_actions_adddup2(&plan.actions, options.output, STDERR_FILENO);
    if (!error && input == Input::none)
        error = posix_spawn_file_actions_addopen(&plan.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    return error;
}

// The reading side of a child's output: keeps the tail.
class Tail {
public:
    explicit Tail(Fd fd) : fd_(std::move(fd)) {}
    [[nodiscard]] int fd() const { return fd_.get(); }

    // One read. False at the end of the output.
    bool read_some() {
        std::array<char, 16384> buffer{};
        const ssize_t n = ::read(fd_.get(), buffer.data(), buffer.size());
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        text_.append(buffer.data(), static_cast<std::size_t>(n));
        if (text_.size() > output_kept)
            text_.erase(0, text_.size() - output_kept);
        return n > 0;
    }

    // What is in the pipe now, and no more: someone else may hold it open and go on writing.
    void drain() {
        int waiting = 0;
        if (ioctl(fd_.get(), FIONREAD, &waiting) < 0)
            return;
        std::array<char, 4096> buffer{};
        while (waiting > 0) {
            const ssize_t n =
                ::read(fd_.get(), buffer.data(), std::min(buffer.size(), static_cast<std::size_t>(waiting)));
            if (n <= 0)
                break;
            text_.append(buffer.data(), static_cast<std::size_t>(n));
            waiting -= static_cast<int>(n);
        }
        if (text_.size() > output_kept)
            text_.erase(0, text_.size() - output_kept);
    }

    std::string take() { return std::move(text_); }

private:
    Fd fd_;
    std::string text_;
};

} // namespace

std::string ExitStatus::text() const {
    if (!signalled)
        return fmt::format("exited with status {}", value);
    const char* name = sigabbrev_np(value);
    return name ? fmt::format("was killed by SIG{} ({})", name, value)
                : fmt::format("was killed by signal {}", value);
}

struct Children::Impl {
    Loop& loop;
    Source on_child;
    std::map<pid_t, std::optional<ExitStatus>> ours;

    explicit Impl(Loop& l) : loop(l) {}

    // One SIGCHLD may stand for many children.
    void reap() {
        for (;;) {
            int status = 0;
            const pid_t pid = waitpid(-1, &status, WNOHANG);
            if (pid <= 0)
                return;
            const auto found = ours.find(pid);
            if (found != ours.end())
                found->second = decode(status);
            else
                spdlog::debug("reaped process {}, which was not started by this agent", pid);
        }
    }

    // Only reap(), which the loop alone calls, waits for children: one that has already ended when this
    // returns is still a zombie, and its status comes with the loop's next turn.
    Result<pid_t> spawn(const Argv& argv, const SpawnOptions& options, Input input) {
        if (argv.empty() || argv.front().empty())
            return failure(Exit::usage, "cannot start a server: no command; give it after --");
        SpawnPlan plan;
        if (const int error = fill(plan, options, input))
            return system_failure(fmt::format("cannot prepare to start '{}'", argv.front()), error);
        const auto environment = merged_environment(options.environment);
        pid_t pid = -1;
        std::optional<UsualTurns> usual;
        if (!options.short_turns)
            usual.emplace();
        const int error = posix_spawnp(&pid, argv.front().c_str(), &plan.actions, &plan.attributes,
                                       pointers(argv).data(), pointers(environment).data());
        usual.reset();
        if (error)
            return cannot_start(argv.front(), error);
        ours[pid].reset();
        if (options.niceness != 0)
            setpriority(PRIO_PROCESS, static_cast<id_t>(pid),
                        getpriority(PRIO_PROCESS, 0) + options.niceness);
        return pid;
    }

    void kill_late(pid_t pid, const SpawnOptions& options) {
        // Not reaped yet, so the pid is still this child's.
        kill(options.own_group ? -pid : pid, SIGKILL);
        loop.run_until([&] { return ours[pid].has_value(); }, Clock::now() + kill_grace);
    }
};

Children::Children() = default;
Children::~Children() = default;

Result<std::unique_ptr<Children>> Children::start(Loop& loop) {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return system_failure("cannot become the reaper of the server's orphans (PR_SET_CHILD_SUBREAPER)",
                              errno);
    std::unique_ptr<Children> children(new Children);
    children->impl_ = std::make_unique<Impl>(loop);
    auto source =
        loop.on_signal(SIGCHLD, [impl = children->impl_.get()](const signalfd_siginfo&) { impl->reap(); });
    if (!source)
        return std::unexpected(source.error());
    children->impl_->on_child = std::move(*source);
    // Whoever ended before SIGCHLD was blocked sent it to nobody.
    children->impl_->reap();
    return children;
}

Result<void> Children::can_spawn(const Argv& argv) const {
    const std::string program = argv.empty() ? "" : argv.front();
    if (program.find('/') != program.npos)
        return access(program.c_str(), X_OK) == 0 ? Result<void>{} : cannot_start(program, errno);
    const char* path = std::getenv("PATH");
    std::stringstream directories(path ? path : "/bin:/usr/bin"); // as posix_spawnp without PATH
    int why = ENOENT;
    for (std::string directory; std::getline(directories, directory, ':');) {
        if (access(fmt::format("{}/{}", directory.empty() ? "." : directory, program).c_str(), X_OK) == 0)
            return {};
        if (errno == EACCES)
            why = EACCES;
    }
    return cannot_start(program, why);
}

Result<pid_t> Children::spawn(const Argv& argv, const SpawnOptions& options) {
    return impl_->spawn(argv, options, Input::ours);
}

std::optional<ExitStatus> Children::status(pid_t pid) const {
    const auto found = impl_->ours.find(pid);
    return found == impl_->ours.end() ? std::nullopt : found->second;
}

void Children::forget(pid_t pid) {
    impl_->ours.erase(pid);
}

Result<Finished> Children::run(const Argv& argv, Time deadline, const SpawnOptions& options,
                               const std::function<bool()>& cancelled) {
    const std::string program = argv.empty() ? "" : argv.front();
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) < 0)
        return system_failure(fmt::format("cannot make a pipe for the output of '{}'", program), errno);
    Tail output{Fd(ends[0])};
    Fd write_end(ends[1]);
    fcntl(output.fd(), F_SETFL, O_NONBLOCK); // our end only: each end has its own flags

    SpawnOptions with_pipe = options;
    with_pipe.output = write_end.get();
    // Reading from a terminal would stop a background process group for ever.
    const auto pid = impl_->spawn(argv, with_pipe, Input::none);
    if (!pid)
        return std::unexpected(pid.error());
    write_end.reset();

    Source reader;
    auto source = impl_->loop.on_io(output.fd(), EPOLLIN, [&](std::uint32_t) {
        if (!output.read_some())
            reader.reset();
    });
    if (!source) {
        impl_->kill_late(*pid, options);
        forget(*pid);
        return std::unexpected(source.error());
    }
    reader = std::move(*source);

    impl_->loop.run_until([&] { return status(*pid).has_value() || (cancelled && cancelled()); }, deadline,
                          cancelled ? look_for_cancel_every : Duration(std::chrono::hours(1)));
    const bool ended = status(*pid).has_value();
    if (!ended)
        impl_->kill_late(*pid, options);
    const auto result = status(*pid);
    forget(*pid);
    reader.reset();
    output.drain();
    if (!ended && cancelled && cancelled())
        return failure(Exit::failed, fmt::format("'{}' was ended, the agent is stopping", program),
                       ECANCELED);
    if (!ended) {
        std::string message = fmt::format(
            "'{}' did not end in time and was killed; see why it hangs, or allow it more time", program);
        if (const std::string text = output.take(); !text.empty())
            message += fmt::format("; it had said: {}", text);
        return failure(Exit::failed, std::move(message), ETIMEDOUT);
    }
    return Finished{.status = *result, .output = output.take()};
}

} // namespace syngate
