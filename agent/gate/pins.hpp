// SPDX-License-Identifier: GPL-2.0-or-later
// Every bpffs path: BASE/net-<network namespace>/<agent id in hex>/<map>.
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace syngate {

inline constexpr const char* default_pin_base = "/sys/fs/bpf/syngate";

// One agent's directory of pinned maps; removed with its pins on destruction.
class PinDirectory {
public:
    // Fails where base is not on a bpffs that we may write to; the message says which.
    static Result<PinDirectory> make(const std::string& base, std::uint64_t network_namespace,
                                     std::uint64_t owner_id);
    PinDirectory() = default;
    PinDirectory(PinDirectory&& other) noexcept;
    PinDirectory& operator=(PinDirectory&& other) noexcept;
    ~PinDirectory();
    [[nodiscard]] const std::string& path() const { return path_; }

private:
    std::string path_;
};

// Removes the directories in this network namespace whose agent is dead, and the empty ones above.
// Returns what was removed.
std::vector<std::string> sweep_pins(const std::string& base, std::uint64_t network_namespace);

// The same for network namespaces in which no process lives any more. Only from the initial PID
// namespace, where every process is seen; does nothing elsewhere.
std::vector<std::string> sweep_pins_of_dead_namespaces(const std::string& base);

} // namespace syngate
