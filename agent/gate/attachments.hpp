// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"
#include "gate/attachment.hpp"
#include "gate/gate.hpp"
#include "gate/gate_maps.hpp"
#include "gate/replayer.hpp"
#include "net/address_watch.hpp"

#include <map>
#include <memory>
#include <string>

namespace syngate {

enum class Hook { automatic, tcx, tc, xdp };

// The gate's program on every endpoint of this host, as endpoints come and go.
class Attachments {
public:
    // automatic: TCX where the kernel has it, else clsact; these also serve devices that XDP cannot. replayer
    // may be null (nothing can be held).
    Attachments(GateMaps& maps, const Replayer* replayer, Hook hook);
    ~Attachments();
    Attachments(const Attachments&) = delete;
    Attachments& operator=(const Attachments&) = delete;

    // Makes the attached set equal to the endpoints, and the local addresses to theirs. On an error what was
    // attached before stays; what this call attached stays as well when keep_going, else is detached again.
    Result<void> follow(const Addresses& addresses, bool keep_going);

    [[nodiscard]] std::vector<GateInterface> list() const;
    [[nodiscard]] const char* hook_name() const;
    [[nodiscard]] std::size_t local_addresses() const { return current_.local.size(); }
    [[nodiscard]] bool all_can_replay() const;

private:
    struct Attached {
        std::unique_ptr<Attachment> attachment;
        GateInterface shown;
    };
    Result<Attached> attach(const Endpoint& endpoint) const;
    AttachResult attach_by(Hook hook, const Endpoint& endpoint) const;
    void detach(std::uint32_t ifindex);

    GateMaps& maps_;
    const Replayer* replayer_;
    Hook hook_;    // never automatic
    Hook tc_hook_; // what automatic is here
    Addresses current_;
    std::map<std::uint32_t, Attached> attached_;
};

} // namespace syngate
