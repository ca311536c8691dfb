// SPDX-License-Identifier: GPL-2.0-or-later
// Somebody else's BPF program: counts the packets that it sees and lets them go on.
#pragma once

#include "base/fd.hpp"

#include <cstdint>
#include <string>

namespace syngate::live::robust {

class CountingProgram {
public:
    enum class Kind { tc, xdp };
    explicit CountingProgram(Kind kind);
    [[nodiscard]] std::uint64_t packets() const;
    [[nodiscard]] std::uint32_t id() const;

    // Each stays until this object's end.
    void link_tcx(const std::string& device);
    void link_xdp(const std::string& device);
    // For `tc filter add ... bpf da object-pinned PATH`.
    void pin(const std::string& path) const;
    // Still on its interface.
    [[nodiscard]] bool is_linked() const;

private:
    void link(const std::string& device, int type, unsigned flags);
    Fd map_;
    Fd program_;
    Fd link_;
};

} // namespace syngate::live::robust
