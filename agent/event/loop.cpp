// SPDX-License-Identifier: GPL-2.0-or-later
#include "event/loop.hpp"

#include <algorithm>
#include <csignal>
#include <systemd/sd-event.h>

namespace syngate {

struct Source::Impl {
    sd_event_source* source = nullptr;
    std::uint64_t period_us = 0; // 0: once
    std::function<void(std::uint32_t)> on_io;
    std::function<void(const signalfd_siginfo&)> on_signal;
    std::function<void()> on_time;

    ~Impl() {
        if (source) {
            sd_event_source_set_enabled(source, SD_EVENT_OFF);
            sd_event_source_unref(source);
        }
    }
};

Source::Source() = default;
Source::Source(Source&&) noexcept = default;
Source& Source::operator=(Source&&) noexcept = default;
Source::~Source() = default;
void Source::reset() {
    impl_.reset();
}
void Source::enable(bool on) {
    if (impl_)
        sd_event_source_set_enabled(impl_->source, on ? SD_EVENT_ON : SD_EVENT_OFF);
}

namespace {

std::uint64_t now_us() {
    return to_ns(Clock::now()) / 1000;
}

// A handler may destroy its own Source; sd-event keeps the source alive while it dispatches, and a
// copy keeps the function alive.
int dispatch_io(sd_event_source*, int, std::uint32_t revents, void* data) {
    const auto handler = static_cast<Source::Impl*>(data)->on_io;
    handler(revents);
    return 0;
}

int dispatch_signal(sd_event_source*, const signalfd_siginfo* info, void* data) {
    const auto handler = static_cast<Source::Impl*>(data)->on_signal;
    handler(*info);
    return 0;
}

int dispatch_time(sd_event_source* source, std::uint64_t, void* data) {
    auto* impl = static_cast<Source::Impl*>(data);
    const auto handler = impl->on_time;
    if (impl->period_us) {
        sd_event_source_set_time(source, now_us() + impl->period_us);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    }
    handler();
    return 0;
}

constexpr std::uint64_t time_accuracy_us = 1; // the default, 250 ms, is longer than a window

} // namespace

Result<std::unique_ptr<Loop>> Loop::make() {
    std::unique_ptr<Loop> loop(new Loop);
    if (const int r = sd_event_new(&loop->event_); r < 0)
        return system_failure("cannot make an event loop", -r);
    return loop;
}

Loop::~Loop() {
    sd_event_unref(event_);
}

Result<Source> Loop::on_io(int fd, std::uint32_t events, std::function<void(std::uint32_t)> handler) {
    Source source;
    source.impl_ = std::make_unique<Source::Impl>();
    source.impl_->on_io = std::move(handler);
    const int r = sd_event_add_io(event_, &source.impl_->source, fd, events, dispatch_io, source.impl_.get());
    if (r < 0)
        return system_failure("cannot watch a file descriptor", -r);
    return source;
}

Result<Source> Loop::on_signal(int signal, std::function<void(const signalfd_siginfo&)> handler) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    if (sigprocmask(SIG_BLOCK, &set, nullptr) < 0)
        return system_failure("cannot block a signal", errno);
    Source source;
    source.impl_ = std::make_unique<Source::Impl>();
    source.impl_->on_signal = std::move(handler);
    const int r =
        sd_event_add_signal(event_, &source.impl_->source, signal, dispatch_signal, source.impl_.get());
    if (r < 0)
        return system_failure("cannot watch a signal", -r);
    return source;
}

Result<Source> Loop::after(Duration delay, std::function<void()> handler) {
    Source source;
    source.impl_ = std::make_unique<Source::Impl>();
    source.impl_->on_time = std::move(handler);
    const auto delay_us = static_cast<std::uint64_t>(std::max<std::int64_t>(0, delay.count() / 1000));
    const int r = sd_event_add_time(event_, &source.impl_->source, CLOCK_MONOTONIC, now_us() + delay_us,
                                    time_accuracy_us, dispatch_time, source.impl_.get());
    if (r < 0)
        return system_failure("cannot set a timer", -r);
    return source;
}

Result<Source> Loop::every(Duration period, std::function<void()> handler) {
    auto source = after(period, std::move(handler));
    if (source)
        source->impl_->period_us =
            std::max<std::uint64_t>(1, static_cast<std::uint64_t>(period.count()) / 1000);
    return source;
}

bool Loop::run_until(const std::function<bool()>& done, Time deadline, Duration poll_every) {
    for (;;) {
        if (done())
            return true;
        const Time now = Clock::now();
        if (now >= deadline)
            return false;
        const Duration left = std::min<Duration>(deadline - now, poll_every);
        sd_event_run(event_, static_cast<std::uint64_t>(left.count() + 999) / 1000);
    }
}

} // namespace syngate
