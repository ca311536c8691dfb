// SPDX-License-Identifier: GPL-2.0-or-later
// One program of ours on one interface; destroying the attachment takes it off again.
#pragma once

#include "base/result.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <syngate/abi.h>

namespace syngate {

class Attachment {
public:
    virtual ~Attachment() = default;
    [[nodiscard]] virtual syngate_hook hook() const = 0;
    // The clsact qdisc was made for this attachment; whoever takes it off calls release_clsact afterwards.
    [[nodiscard]] virtual bool made_qdisc() const { return false; }
};

using AttachResult = Result<std::unique_ptr<Attachment>>;

// First on the interface, before every other TCX program. The kernel takes it off when the last
// descriptor is closed, so a killed agent leaves nothing.
AttachResult attach_tcx(int program, std::uint32_t ifindex, const std::string& name);
// Whether this kernel has TCX (6.6), by asking for an interface that cannot exist: ENODEV where it
// does, EINVAL where the attach type is unknown.
bool tcx_supported(int program);

// Two programs of one agent in one qdisc are told apart by their filters' handles.
enum class TcRole { gate, divert };

// A direct-action filter in the clsact qdisc, as early as the other filters leave room. It outlives a killed
// agent: the lease opens the gate, and the next start removes it.
AttachResult attach_tc(int program, TcRole role, std::uint32_t ifindex, const std::string& name,
                       std::uint64_t owner_id);

// Native, or generic where the driver has no XDP (EOPNOTSUPP). Exit::busy when another program is
// there already: XDP has one place an interface.
AttachResult attach_xdp(int program, std::uint32_t ifindex, const std::string& name);

} // namespace syngate
