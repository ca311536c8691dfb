// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/log.hpp"

#include <cstdlib>
#include <spdlog/sinks/stdout_sinks.h>

namespace syngate {

void log_start(const std::string& level) {
    auto logger =
        std::make_shared<spdlog::logger>("syngate", std::make_shared<spdlog::sinks::stderr_sink_st>());
    logger->set_pattern(std::getenv("JOURNAL_STREAM") ? "syngate: %l: %v"
                                                      : "%Y-%m-%dT%H:%M:%S.%e syngate %l: %v");
    logger->set_level(spdlog::level::from_str(level));
    logger->flush_on(spdlog::level::trace);
    spdlog::set_default_logger(std::move(logger));
}

} // namespace syngate
