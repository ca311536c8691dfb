// SPDX-License-Identifier: GPL-2.0-or-later
// Transparent proxying by iptables: divert by -m socket, intercept by -j TPROXY. A TPROXY rule without a
// transparent listener drops; so each is there only while one listens, found by looking time and again.
#pragma once

#include "event/loop.hpp"
#include "gate/divert_program.hpp"
#include "gate/gate.hpp"
#include "net/sock_diag.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace syngate {

struct IptablesDivertOptions {
    DivertOptions divert;
    std::uint64_t owner_id = 0;
    std::string variant; // "nft", "legacy"
    bool ipv6 = true;    // marked packets of IPv6 are routed to this host; without, TPROXY would lose them
    Duration lease{};    // the gate's; what is intercepted lasts three of them after the agent's death
};

class IptablesDivert {
public:
    // Exit::impossible names the extension that is missing. gate and sockets outlive this.
    static Result<std::unique_ptr<IptablesDivert>> put_up(Loop& loop, const Gate& gate, Sockets& sockets,
                                                          const IptablesDivertOptions& options);
    virtual ~IptablesDivert() = default;
    // A look at who listens, at once. Not while the gate is closed: who is held there waits for a listener.
    virtual void follow() = 0;
    // Packets by reason, as BPF's but fewer.
    [[nodiscard]] virtual std::vector<std::pair<std::string, std::uint64_t>> verdicts() const = 0;
};

} // namespace syngate
