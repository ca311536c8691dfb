// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/manual_gate.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {

Result<void> ManualGate::close(const PortSet& ports, Policy policy, Duration lease) {
    if (closed_ || gate_.is_closed())
        return failure(Exit::busy, "the gate is closed already; `syngate open` opens it");
    if (ports.empty())
        return failure(Exit::usage, "there is no port to close: nothing listens yet, and --ports names none");
    if (const auto r = gate_.stage(ports, policy); !r)
        return r;
    if (const auto r = gate_.close(lease); !r)
        return r;
    closed_ = true;
    const Duration lasts = gate_.status().lease_left; // not longer than the longest window
    auto lease_end = loop_.after(lasts, [this] {
        spdlog::warn("the lease has ended before `syngate open`: the gate opened by itself");
        (void)open();
    });
    if (!lease_end) {
        (void)open();
        return std::unexpected(lease_end.error());
    }
    lease_end_ = std::move(*lease_end);
    spdlog::info("closed by hand on {} for at most {}", format_ports(ports), format_duration(lasts));
    return {};
}

Result<Window> ManualGate::open() {
    if (!closed_)
        return failure(Exit::failed, "the gate is not closed by hand");
    closed_ = false;
    lease_end_.reset();
    const Window window = gate_.open();
    spdlog::info("open again after {}: {} parked, {} replayed, {} dropped, {} expired",
                 format_duration(window.length), window.parked, window.replayed, window.dropped,
                 window.expired);
    return window;
}

} // namespace syngate
