// SPDX-License-Identifier: GPL-2.0-or-later
// The one event loop (sd-event). The agent is single-threaded: a reload is written as a sequence of
// steps, and each wait in it runs this loop, so that signals, the control socket, lease renewal and
// address changes go on meanwhile. Handlers are short and never wait themselves.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"

#include <functional>
#include <memory>
#include <sys/epoll.h>
#include <sys/signalfd.h>

struct sd_event;
struct sd_event_source;

namespace syngate {

// Owns one registration in the loop; destroying it removes it, inside a handler too.
class Source {
public:
    Source();
    Source(Source&&) noexcept;
    Source& operator=(Source&&) noexcept;
    ~Source();
    void reset();
    void enable(bool on); // keeps the registration
    explicit operator bool() const { return impl_ != nullptr; }

    struct Impl; // loop.cpp's own

private:
    friend class Loop;
    std::unique_ptr<Impl> impl_;
};

class Loop {
public:
    static Result<std::unique_ptr<Loop>> make();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    // epoll events (EPOLLIN, ...); the descriptor stays the caller's.
    Result<Source> on_io(int fd, std::uint32_t events, std::function<void(std::uint32_t revents)> handler);
    // Blocks the signal in this process and takes it from a signalfd.
    Result<Source> on_signal(int signal, std::function<void(const signalfd_siginfo&)> handler);
    // Every period, first after one period.
    Result<Source> every(Duration period, std::function<void()> handler);
    // Once.
    Result<Source> after(Duration delay, std::function<void()> handler);

    // Dispatches until done() or the deadline; done is asked first, after each event, and at least
    // every poll_every. Returns whether it was done. Not to be called from a handler.
    bool run_until(const std::function<bool()>& done, Time deadline,
                   Duration poll_every = std::chrono::hours(1));

private:
    Loop() = default;
    sd_event* event_ = nullptr;
};

} // namespace syngate
