// SPDX-License-Identifier: GPL-2.0-or-later
// Transparent proxying's BPF object in this process: marks what must be routed to this host. What is in which
// map: include/syngate/abi.h.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"
#include "gate/gate_maps.hpp"
#include "gate/intercept.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <syngate/abi.h>
#include <vector>

struct divert;

namespace syngate {

struct DivertOptions {
    std::uint32_t mark = 0; // skb->mark becomes (skb->mark & ~mask) | mark
    std::uint32_t mask = 0;
    std::vector<Intercept> intercepts;
    bool needed = true; // false: a gate without it is better than none, or one of another mode
};

class DivertProgram {
public:
    // Shares the gate's addresses, rules and owner. With rules to intercept, what chooses the listener is
    // attached to this network namespace. Exit::impossible where this kernel does not take it.
    static Result<std::unique_ptr<DivertProgram>> load(const DivertOptions& options, const GateMaps& gate);
    ~DivertProgram();
    DivertProgram(const DivertProgram&) = delete;
    DivertProgram& operator=(const DivertProgram&) = delete;

    [[nodiscard]] int tc_program(bool ethernet) const;
    [[nodiscard]] syngate_divert_verdicts verdicts() const; // summed over the CPUs
    Result<void> pin(const std::string& directory);

private:
    explicit DivertProgram(::divert* skeleton) : skeleton_(skeleton) {}

    ::divert* skeleton_;
    Fd link_; // detaches with this process, however it ends
};

} // namespace syngate
