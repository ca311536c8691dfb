// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/client.hpp"

#include "base/fd.hpp"
#include "load/answer.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>

namespace syngate::load {

namespace {

constexpr std::string_view request = "GET / HTTP/1.0\r\nHost: x\r\n\r\n";
constexpr std::uint32_t none = UINT32_MAX;
constexpr std::uint32_t stop_mark = none - 1; // the stop_fd among the slots' events
constexpr std::uint64_t most_slots = 1'000'000;
constexpr int own_files = 64;     // left for what the process has open besides connections
constexpr int starts_a_turn = 32; // so that answers are stamped in time while the generator catches up

Clock::rep now_ns() {
    return Clock::now().time_since_epoch().count();
}

// One connection. In the list of open ones (by start, hence by deadline) or in the list of free ones.
struct Slot {
    int fd = -1;
    std::uint32_t previous = none;
    std::uint32_t next = none;
    bool connected = false;
    Clock::rep intended = 0;
    Clock::rep connect_called = 0;
    Answer answer;
};

// How many files may be open, after asking for this many.
std::uint64_t raise_file_limit(std::uint64_t wanted) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 1024;
    if (limit.rlim_cur >= wanted)
        return limit.rlim_cur;
    const rlimit more{wanted, std::max<rlim_t>(limit.rlim_max, wanted)};
    const rlimit all{limit.rlim_max, limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &more) != 0 && ::setrlimit(RLIMIT_NOFILE, &all) != 0)
        return limit.rlim_cur;
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

class Engine {
public:
    explicit Engine(const Options& options) : options_(options) {}
    Result<Report> run();

private:
    Result<> prepare();
    Clock::rep intended(std::uint64_t index) const;
    void start_due();
    void start(Clock::rep when);
    int open_socket(const Endpoint& to);
    void failed_locally(const char* call, int code, Clock::rep now);
    bool watch_stop();
    void read_stop();
    void expire(Clock::rep now);
    void wait(Clock::rep now);
    void on_event(std::uint32_t index, std::uint32_t events);
    void read_answer(std::uint32_t index, std::uint32_t events);
    void finish(std::uint32_t index, Outcome outcome);
    void tell_progress(Clock::rep now);
    void count(Outcome outcome, Clock::rep now);
    [[nodiscard]] bool all_started() const { return stopped_ || report_.started >= total_; }

    const Options& options_;
    Report report_;
    Fd epoll_;
    std::vector<Slot> slots_;
    std::uint32_t free_ = none;
    std::uint32_t oldest_ = none;
    std::uint32_t newest_ = none;
    std::uint64_t open_ = 0;
    std::uint64_t total_ = 0;
    std::uint64_t next_source_[2] = {0, 0}; // IPv4, IPv6
    std::vector<Endpoint> sources_[2];
    bool stopped_ = false;
    bool fine_wait_ = true; // epoll_pwait2 is there (Linux 5.11)
    Clock::rep begin_ = 0;
    Clock::rep last_start_ = 0;
    Clock::rep next_progress_ = 0;
    std::array<epoll_event, 256> events_{};
    std::array<char, 65536> buffer_{};
};

Result<> Engine::prepare() {
    if (options_.to.empty() || !(options_.rate > 0) || options_.rate > 1e7 ||
        options_.timeout <= Duration::zero())
        return failure(Exit::usage,
                       "a load run needs a destination, a rate of up to 10,000,000/s and a timeout");
    for (const auto& from : options_.from)
        sources_[from.family() == AF_INET6 ? 1 : 0].push_back(from);
    epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_)
        return system_failure("cannot make an epoll instance for the connections", errno);
    if (!watch_stop())
        return system_failure("cannot wait for the end of the standard input", errno);

    const double seconds = std::chrono::duration<double>(options_.duration).count();
    const double held = std::chrono::duration<double>(std::min(options_.timeout, options_.duration)).count();
    total_ = static_cast<std::uint64_t>(options_.rate * seconds + 0.5);
    const auto wanted =
        std::min(most_slots, static_cast<std::uint64_t>(std::ceil(options_.rate * held)) + 1024);
    const auto files = raise_file_limit(wanted + own_files);
    slots_.resize(std::min(wanted, files - std::min<std::uint64_t>(files, own_files)));
    for (auto i = static_cast<std::uint32_t>(slots_.size()); i-- > 0;) {
        slots_[i].next = free_;
        free_ = i;
    }
    // The kernel's default of 50 us would be the generator's lateness at every start.
    ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    return {};
}

// False with errno. What epoll cannot watch (a file, /dev/null) is read to its end at once.
bool Engine::watch_stop() {
    if (options_.stop_fd < 0)
        return true;
    epoll_event event{EPOLLIN, {.u32 = stop_mark}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, options_.stop_fd, &event) == 0)
        return true;
    if (errno != EPERM)
        return false;
    stopped_ = true;
    return true;
}

void Engine::read_stop() {
    const auto got = ::read(options_.stop_fd, buffer_.data(), buffer_.size());
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, options_.stop_fd, nullptr);
    stopped_ = true;
}

Clock::rep Engine::intended(std::uint64_t index) const {
    return begin_ + static_cast<Clock::rep>(static_cast<double>(index) * 1e9 / options_.rate);
}

Result<Report> Engine::run() {
    if (auto prepared = prepare(); !prepared)
        return std::unexpected(prepared.error());
    report_.wanted_rate = options_.rate;
    begin_ = now_ns();
    last_start_ = begin_;
    next_progress_ = begin_;
    while (true) {
        if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed))
            stopped_ = true;
        start_due();
        const auto now = now_ns();
        tell_progress(now);
        if (all_started() && open_ == 0)
            break;
        wait(now);
        expire(now_ns()); // after the answers that are there, however late they are read
    }
    report_.elapsed = Duration(now_ns() - begin_);
    const double scheduled = static_cast<double>(last_start_ - begin_) + 1e9 / options_.rate;
    report_.achieved_rate = static_cast<double>(report_.started) * 1e9 / scheduled;
    return std::move(report_);
}

void Engine::start_due() {
    for (int i = 0; i < starts_a_turn && !all_started(); ++i) {
        const auto when = intended(report_.started);
        const auto now = now_ns();
        if (when > now)
            return;
        last_start_ = now;
        report_.max_lateness = std::max(report_.max_lateness, Duration(now - when));
        start(when);
    }
}

void Engine::start(Clock::rep when) {
    const auto& to = options_.to[report_.started++ % options_.to.size()];
    if (last_start_ - when >= options_.timeout.count()) // it would be blamed on the server
        return failed_locally("a start was late by more than the timeout", ETIME, last_start_);
    if (free_ == none)
        return failed_locally("more connections open than files may be", EMFILE, last_start_);
    const int fd = open_socket(to);
    if (fd < 0)
        return;
    const auto index = free_;
    auto& slot = slots_[index];
    free_ = slot.next;
    slot = Slot{.fd = fd, .previous = newest_, .intended = when, .connect_called = now_ns()};
    (newest_ == none ? oldest_ : slots_[newest_].next) = index;
    newest_ = index;
    report_.max_open = std::max(report_.max_open, ++open_);

    if (::connect(fd, to.raw(), to.length) != 0 && errno != EINPROGRESS) {
        const int code = errno;
        if (outcome_of_error(code) == Outcome::local && report_.first_local_error.empty())
            report_.first_local_error = std::string("connect: ") + std::strerror(code);
        return finish(index, outcome_of_error(code));
    }
    epoll_event event{EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.u32 = index}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
        if (report_.first_local_error.empty())
            report_.first_local_error = std::string("epoll_ctl: ") + std::strerror(errno);
        finish(index, Outcome::local);
    }
}

// A socket bound to the next source of the destination's family, or -1 after the failure was counted.
int Engine::open_socket(const Endpoint& to) {
    const int fd = ::socket(to.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) {
        failed_locally("socket", errno, last_start_);
        return -1;
    }
    const auto kind = to.family() == AF_INET6 ? 1U : 0U;
    if (sources_[kind].empty())
        return fd;
    const auto& from = sources_[kind][next_source_[kind]++ % sources_[kind].size()];
    // The port is chosen by connect, for the four-tuple: bind alone would use up one for all destinations.
    const int yes = 1;
    if (::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) != 0 ||
        ::bind(fd, from.raw(), from.length) != 0) {
        failed_locally("bind to a source address", errno, last_start_);
        ::close(fd);
        return -1;
    }
    return fd;
}

void Engine::failed_locally(const char* call, int code, Clock::rep now) {
    if (report_.first_local_error.empty())
        report_.first_local_error = std::string(call) + ": " + std::strerror(code);
    count(Outcome::local, now);
}

void Engine::count(Outcome outcome, Clock::rep now) {
    report_.outcomes.add(outcome);
    if (outcome == Outcome::ok)
        return;
    report_.last_failure = Duration(now - begin_);
    if (!report_.first_failure)
        report_.first_failure = report_.last_failure;
}

void Engine::expire(Clock::rep now) {
    while (oldest_ != none && slots_[oldest_].intended + options_.timeout.count() <= now)
        finish(oldest_, Outcome::timed_out);
}

void Engine::tell_progress(Clock::rep now) {
    if (!options_.progress || now < next_progress_)
        return;
    next_progress_ += 1'000'000'000;
    options_.progress({Duration(now - begin_), report_.started, report_.outcomes[Outcome::ok],
                       report_.outcomes.failed(), open_, report_.latency.max()});
}

void Engine::wait(Clock::rep now) {
    auto until = now + 1'000'000'000;
    if (!all_started())
        until = std::min(until, intended(report_.started));
    if (oldest_ != none)
        until = std::min(until, slots_[oldest_].intended + options_.timeout.count());
    if (options_.progress)
        until = std::min(until, next_progress_);
    const auto left = std::max<Clock::rep>(0, until - now);
    const auto room = static_cast<int>(events_.size());
    int got = -1;
    if (fine_wait_) {
        const timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
        got = ::epoll_pwait2(epoll_.get(), events_.data(), room, &timeout, nullptr);
        fine_wait_ = got >= 0 || errno != ENOSYS;
    }
    if (!fine_wait_) // rounded down: better to turn a while than to start late
        got = ::epoll_wait(epoll_.get(), events_.data(), room, static_cast<int>(left / 1'000'000));
    for (int i = 0; i < got; ++i) {
        const auto& event = events_[static_cast<std::size_t>(i)];
        if (event.data.u32 == stop_mark)
            read_stop();
        else
            on_event(event.data.u32, event.events);
    }
}

void Engine::on_event(std::uint32_t index, std::uint32_t events) {
    auto& slot = slots_[index];
    if (!slot.connected) {
        if ((events & EPOLLERR) != 0) {
            int code = 0;
            socklen_t length = sizeof code;
            ::getsockopt(slot.fd, SOL_SOCKET, SO_ERROR, &code, &length);
            return finish(index, outcome_of_error(code));
        }
        if ((events & EPOLLOUT) == 0)
            return;
        slot.connected = true;
        report_.connect.record(Duration(now_ns() - slot.connect_called));
        const auto sent = ::send(slot.fd, request.data(), request.size(), MSG_NOSIGNAL);
        if (sent != static_cast<ssize_t>(request.size()))
            return finish(index, sent < 0 ? outcome_of_error(errno) : Outcome::local);
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        read_answer(index, events);
}

void Engine::read_answer(std::uint32_t index, std::uint32_t events) {
    auto& slot = slots_[index];
    while (true) {
        const auto got = ::recv(slot.fd, buffer_.data(), buffer_.size(), 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                finish(index, outcome_of_error(errno));
            return;
        }
        if (got == 0)
            return finish(index, slot.answer.at_end());
        slot.answer.feed({buffer_.data(), static_cast<std::size_t>(got)});
        if (options_.reset_close && slot.answer.complete())
            return finish(index, slot.answer.at_end());
        if (got == static_cast<ssize_t>(buffer_.size()) || (events & (EPOLLERR | EPOLLHUP)) != 0)
            continue;
        // A short read emptied the queue. If the FIN was in before, this was all and the read that
        // would return 0 is saved; if not, the edge for what comes next is still ahead.
        if ((events & EPOLLRDHUP) != 0)
            finish(index, slot.answer.at_end());
        return;
    }
}

void Engine::finish(std::uint32_t index, Outcome outcome) {
    auto& slot = slots_[index];
    const auto now = now_ns();
    count(outcome, now);
    if (outcome == Outcome::ok)
        report_.latency.record(Duration(now - slot.intended));
    if (outcome != Outcome::ok || options_.reset_close) {
        const linger at_once{1, 0};
        ::setsockopt(slot.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    ::close(slot.fd);
    (slot.previous == none ? oldest_ : slots_[slot.previous].next) = slot.next;
    (slot.next == none ? newest_ : slots_[slot.next].previous) = slot.previous;
    slot.next = free_;
    free_ = index;
    --open_;
}

} // namespace

Result<Report> run(const Options& options) {
    return std::make_unique<Engine>(options)->run(); // its buffers are too large for a thread's stack
}

} // namespace syngate::load
