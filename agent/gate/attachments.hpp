// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/result.hpp"
#include "gate/attachment.hpp"
#include "gate/divert_program.hpp"
#include "gate/gate.hpp"
#include "gate/gate_maps.hpp"
#include "gate/replayer.hpp"
#include "net/address_watch.hpp"

#include <map>
#include <memory>
#include <string>

namespace syngate {

enum class Hook { automatic, tcx, tc, xdp };

// The gate's program on every endpoint of this host, as endpoints come and go, and behind it the divert
// program, if there is one. That one is not on lo, where packets have their route when they arrive.
class Attachments {
public:
    // automatic: TCX where the kernel has it, else clsact; these also serve devices that XDP cannot. replayer
    // may be null (nothing can be held), divert too.
    Attachments(GateMaps& maps, const Replayer* replayer, const DivertProgram* divert, Hook hook);
    ~Attachments();
    Attachments(const Attachments&) = delete;
    Attachments& operator=(const Attachments&) = delete;

    // As follow() of the first endpoint alone, where the kernel waits for a grace period of RCU at each
    // (TCX): what succeeds there succeeds elsewhere. Of all endpoints where it does not wait.
    Result<void> begin(const Addresses& addresses);

    // Makes the attached set equal to the endpoints, and the local addresses to theirs. On an error what was
    // attached before stays; what this call attached stays as well when keep_going, else is detached again.
    Result<void> follow(const Addresses& addresses, bool keep_going);

    [[nodiscard]] std::vector<GateInterface> list() const;
    [[nodiscard]] const char* hook_name() const;
    [[nodiscard]] std::size_t local_addresses() const { return current_.local.size(); }
    [[nodiscard]] bool all_can_replay() const;

private:
    struct Attached {
        std::unique_ptr<Attachment> gate;
        std::unique_ptr<Attachment> divert; // may be null
        GateInterface shown;
        [[nodiscard]] bool made_qdisc() const {
            return gate->made_qdisc() || (divert && divert->made_qdisc());
        }
    };
    Result<Attached> attach(const Endpoint& endpoint) const;
    AttachResult attach_gate(Hook hook, const Endpoint& endpoint) const;
    AttachResult attach_divert(const Endpoint& endpoint) const;
    void detach(std::uint32_t ifindex);

    GateMaps& maps_;
    const Replayer* replayer_;
    const DivertProgram* divert_;
    Hook hook_;    // never automatic
    Hook tc_hook_; // what automatic is here, and where the divert program sits unless hook_ is the other one
    Addresses current_;
    std::map<std::uint32_t, Attached> attached_;
};

} // namespace syngate
