// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/process.hpp"

#include "netns/internal.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sched.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <tuple>
#include <unistd.h>

namespace syngate::live {

namespace {

Fd memory_file(const char* name) {
    Fd fd(::memfd_create(name, MFD_CLOEXEC));
    // Appending, so that a program that opens its standard error once more does not overwrite.
    if (!fd || ::fcntl(fd.get(), F_SETFL, O_APPEND) != 0)
        fail("cannot make a memory file for a program's output");
    return fd;
}

std::string content(const Fd& fd) {
    std::string text;
    char buffer[65536];
    ssize_t got = 0;
    while ((got = ::pread(fd.get(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0)
        text.append(buffer, static_cast<std::size_t>(got));
    return text;
}

std::pair<Fd, Fd> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0)
        fail("cannot make a pipe");
    return {Fd(ends[0]), Fd(ends[1])};
}

std::vector<std::string> environment(const std::vector<std::pair<std::string, std::string>>& extra) {
    std::vector<std::string> result;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        const std::string_view text(*entry);
        const auto name = text.substr(0, text.find('='));
        if (std::ranges::find(extra, name, [](const auto& e) { return std::string_view(e.first); }) ==
            extra.end())
            result.emplace_back(text);
    }
    for (const auto& [name, value] : extra)
        result.push_back(name + "=" + value);
    return result;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (const auto& text : texts)
        result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
}

// In the child, between fork and exec: no memory is allocated here.
struct Child {
    char* const* argv;
    char* const* env;
    int where;
    int in;
    int out;
    int err;
    int complaint; // gets errno if there is no exec

    [[noreturn]] void become() const {
        ::setpgid(0, 0);
        sigset_t no_signals;
        ::sigemptyset(&no_signals);
        ::sigprocmask(SIG_SETMASK, &no_signals, nullptr);
        if ((where < 0 || ::setns(where, CLONE_NEWNET) == 0) && ::dup2(in, 0) == 0 && ::dup2(out, 1) == 1 &&
            ::dup2(err, 2) == 2)
            ::execvpe(argv[0], argv, env);
        const int code = errno;
        [[maybe_unused]] const auto written = ::write(complaint, &code, sizeof code);
        ::_exit(127);
    }
};

int poll_timeout(Time until) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000));
}

} // namespace

bool wait_until(const std::function<bool()>& is_so, Duration deadline) {
    const auto until = Clock::now() + deadline;
    while (!is_so()) {
        if (Clock::now() >= until)
            return false;
        ::poll(nullptr, 0, 1);
    }
    return true;
}

Process::Process(const Argv& argv, const SpawnOptions& options)
    : out_(memory_file("out")), err_(memory_file("err")) {
    Fd input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (options.open_stdin)
        std::tie(input, stdin_) = make_pipe();
    auto [complaint, complainer] = make_pipe();
    const auto env = environment(options.extra_env);
    const auto env_pointers = pointers(env);
    const auto argv_pointers = pointers(argv);
    const Child child{
        argv_pointers.data(), env_pointers.data(), options.where == nullptr ? -1 : options.where->fd(),
        input.get(),          out_.get(),          err_.get(),
        complainer.get()};
    pid_ = ::fork();
    if (pid_ < 0)
        fail("cannot fork for " + argv.front());
    if (pid_ == 0)
        child.become();
    ::setpgid(pid_, pid_); // here as well: the destructor may come before the child does it
    pidfd_ = Fd(pidfd_open(pid_));
    complainer.reset();
    int code = 0;
    if (::read(complaint.get(), &code, sizeof code) == sizeof code) {
        ::waitpid(pid_, nullptr, 0);
        errno = code;
        fail("cannot execute " + argv.front());
    }
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)), stdin_(std::move(other.stdin_)),
      out_(std::move(other.out_)), err_(std::move(other.err_)), status_(other.status_) {}

Process::~Process() {
    if (pid_ <= 0)
        return;
    ::kill(-pid_, SIGKILL); // the group may have outlived its leader
    if (!status_)
        ::waitpid(pid_, nullptr, 0);
}

void Process::signal(int number) const {
    if (!status_)
        pidfd_send_signal(pidfd_.get(), number);
}

void Process::write_stdin(std::string_view text) const {
    if (::write(stdin_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        fail("cannot write to a program's standard input");
}

std::optional<ExitStatus> Process::wait(Duration deadline) {
    const auto until = Clock::now() + deadline;
    while (!status_) {
        pollfd ended{pidfd_.get(), POLLIN, 0};
        const int got = ::poll(&ended, 1, poll_timeout(until));
        int status = 0;
        if (got > 0 && ::waitpid(pid_, &status, 0) == pid_)
            status_ =
                WIFEXITED(status) ? ExitStatus{WEXITSTATUS(status), 0} : ExitStatus{-1, WTERMSIG(status)};
        else if (Clock::now() >= until)
            break;
    }
    return status_;
}

std::string Process::out() const {
    return content(out_);
}

std::string Process::err() const {
    return content(err_);
}

RunResult run(const Argv& argv, const SpawnOptions& options, Duration deadline) {
    Process process(argv, options);
    const auto status = process.wait(deadline);
    if (!status)
        throw std::runtime_error(fmt::format("{} did not end in {}\n{}{}", fmt::join(argv, " "),
                                             format_duration(deadline), process.out(), process.err()));
    return {*status, process.out(), process.err()};
}

std::string must_run(const Argv& argv, const SpawnOptions& options) {
    const auto result = run(argv, options);
    if (!result.ok())
        throw std::runtime_error(fmt::format("{} failed (exit status {}, signal {})\n{}{}",
                                             fmt::join(argv, " "), result.status.code, result.status.signal,
                                             result.out, result.err));
    return result.out;
}

std::set<pid_t> processes() {
    std::set<pid_t> pids;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const auto name = entry.path().filename().string();
        if (std::ranges::all_of(name, [](unsigned char c) { return std::isdigit(c) != 0; }))
            pids.insert(std::stoi(name));
    }
    return pids;
}

std::string built(std::string_view program) {
    return fmt::format("{}/{}", SYNGATE_BUILD_DIR, program);
}

} // namespace syngate::live
