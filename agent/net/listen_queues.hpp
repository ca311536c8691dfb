// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <memory>
#include <set>
#include <syngate/abi.h>
#include <vector>

namespace syngate {

// Reads the queues of listening sockets by a BPF iterator (bpf/queues.bpf.c).
class ListenQueues {
public:
    // Exit::impossible where the kernel has no such iterator (5.9 with BTF) or CAP_PERFMON is missing.
    static Result<std::unique_ptr<ListenQueues>> load();
    ~ListenQueues();

    // The queues of those of the wanted listeners (cookies) that listen now. Reads no further than it must:
    // behind the listeners the iterator would walk every connection.
    Result<std::vector<syngate_queue>> read(const std::set<std::uint64_t>& wanted);

private:
    ListenQueues();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace syngate
