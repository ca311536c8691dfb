// SPDX-License-Identifier: GPL-2.0-or-later
#include "event/service_manager.hpp"

#include "base/clock.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <systemd/sd-daemon.h>

namespace syngate {

namespace {

// systemd takes no message above a page, and a line for an assignment.
constexpr std::size_t longest_status = 500;

} // namespace

void tell_service_manager(ServiceState state, const std::string& text) {
    std::string message = "READY=1";
    if (state == ServiceState::stopping)
        message = "STOPPING=1";
    else if (state == ServiceState::reloading) // systemd orders it by this clock against its own request
        message = fmt::format("RELOADING=1\nMONOTONIC_USEC={}", to_ns(Clock::now()) / 1000);
    sd_notify(0,
              fmt::format("{}\nSTATUS={}", message, text.substr(0, std::min(text.find('\n'), longest_status)))
                  .c_str());
}

} // namespace syngate
