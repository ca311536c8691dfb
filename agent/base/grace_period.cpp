// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/grace_period.hpp"

#include <cerrno>
#include <cstring>
#include <linux/membarrier.h>
#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace syngate {

void wait_for_packets_under_way() {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
        spdlog::debug("no grace period after a flip: {}", std::strerror(errno));
}

} // namespace syngate
