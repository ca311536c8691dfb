// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/attachments.hpp"

#include "gate/gate_program.hpp"
#include "probe/switches.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <net/if.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

const char* name_of(syngate_hook hook) {
    switch (hook) {
    case SYNGATE_HOOK_TCX:
        return "tcx";
    case SYNGATE_HOOK_TC:
        return "tc";
    case SYNGATE_HOOK_XDP_NATIVE:
        return "xdp-native";
    case SYNGATE_HOOK_XDP_GENERIC:
        return "xdp-generic";
    }
    return "?";
}

constexpr std::uint32_t loopback_ifindex = 1; // LOOPBACK_IFINDEX in the kernel's net.h

// Gone between the kernel's list and our call.
bool vanished(const Error& error) {
    return error.code == ENODEV || error.code == ENXIO;
}

} // namespace

Attachments::Attachments(GateMaps& maps, const Replayer* replayer, const DivertProgram* divert, Hook hook)
    : maps_(maps), replayer_(replayer), divert_(divert), hook_(hook),
      tc_hook_(!switched_off(feature::tcx) && tcx_supported(maps.tc_program()) ? Hook::tcx : Hook::tc) {
    if (hook_ == Hook::automatic)
        hook_ = tc_hook_;
    if (hook_ == Hook::tcx || hook_ == Hook::tc)
        tc_hook_ = hook_;
}

Attachments::~Attachments() {
    while (!attached_.empty())
        detach(attached_.begin()->first);
}

void Attachments::detach(std::uint32_t ifindex) {
    const auto entry = maps_.remove_interface(ifindex);
    attached_.erase(ifindex);
    if (entry && entry->made_qdisc)
        release_clsact(ifindex);
}

AttachResult Attachments::attach_gate(Hook hook, const Endpoint& endpoint) const {
    if (hook == Hook::xdp && maps_.xdp_program() < 0)
        return failure(Exit::impossible, "on this kernel the verifier loads the XDP program only with "
                                         "CAP_PERFMON: add it, or use --hook tc");
    if (hook == Hook::xdp)
        return attach_xdp(maps_.xdp_program(), endpoint.ifindex, endpoint.name);
    const auto program = endpoint.ethernet ? Result<int>(maps_.tc_program()) : maps_.tc_program_l3();
    if (!program)
        return std::unexpected(program.error());
    if (hook == Hook::tcx)
        return attach_tcx(*program, endpoint.ifindex, endpoint.name);
    return attach_tc(*program, TcRole::gate, endpoint.ifindex, endpoint.name, maps_.word().owner_id);
}

AttachResult Attachments::attach_divert(const Endpoint& endpoint) const {
    const int program = divert_->tc_program(endpoint.ethernet);
    if (tc_hook_ == Hook::tcx)
        return attach_tcx(program, endpoint.ifindex, endpoint.name);
    return attach_tc(program, TcRole::divert, endpoint.ifindex, endpoint.name, maps_.word().owner_id);
}

const char* Attachments::hook_name() const {
    return hook_ == Hook::tcx ? "tcx" : hook_ == Hook::tc ? "tc" : "xdp";
}

Result<Attachments::Attached> Attachments::attach(const Endpoint& endpoint) const {
    Hook hook = hook_;
    if (hook == Hook::xdp && !endpoint.ethernet) {
        hook = tc_hook_;
        spdlog::info("{}: frames without an Ethernet header are none for XDP, gated by {} instead",
                     endpoint.name, hook == Hook::tcx ? "tcx" : "tc");
    }
    Attached attached;
    // Each goes before what is there: the gate is asked first, so what it holds or drops is diverted, and
    // counted, when it comes again.
    if (divert_ && endpoint.ifindex != loopback_ifindex) {
        AttachResult made = attach_divert(endpoint);
        if (!made)
            return std::unexpected(made.error());
        attached.divert = std::move(*made);
    }
    AttachResult made = attach_gate(hook, endpoint);
    if (!made) {
        const bool made_qdisc = attached.divert && attached.divert->made_qdisc();
        attached.divert.reset();
        if (made_qdisc)
            release_clsact(endpoint.ifindex);
        return std::unexpected(made.error());
    }
    attached.gate = std::move(*made);
    attached.shown.name = endpoint.name;
    attached.shown.hook = name_of(attached.gate->hook());
    attached.shown.divert = attached.divert ? name_of(attached.divert->hook()) : "";
    attached.shown.can_replay = replayer_ && replayer_->probe(endpoint.ifindex).has_value();

    syngate_interface entry{};
    endpoint.name.copy(entry.name, sizeof(entry.name) - 1);
    entry.hook = attached.gate->hook();
    entry.can_replay = attached.shown.can_replay;
    entry.ethernet = endpoint.ethernet;
    entry.made_qdisc = attached.made_qdisc();
    if (const auto r = maps_.set_interface(endpoint.ifindex, entry); !r) {
        attached.gate.reset();
        attached.divert.reset();
        if (entry.made_qdisc)
            release_clsact(endpoint.ifindex);
        return std::unexpected(r.error());
    }
    return attached;
}

Result<void> Attachments::begin(const Addresses& addresses) {
    Addresses first = addresses;
    if (hook_ == Hook::tcx && first.endpoints.size() > 1)
        first.endpoints.erase(std::next(first.endpoints.begin()), first.endpoints.end());
    return follow(first, false);
}

Result<void> Attachments::follow(const Addresses& addresses, bool keep_going) {
    std::vector<std::uint32_t> added;
    Result<void> result;
    for (const auto& [ifindex, endpoint] : addresses.endpoints) {
        const auto known = current_.endpoints.find(ifindex);
        if (attached_.contains(ifindex) && known != current_.endpoints.end() && known->second == endpoint)
            continue;
        detach(ifindex); // renamed, or another device took the number
        auto attached = attach(endpoint);
        if (attached) {
            spdlog::debug("gate: attached to {} by {}", endpoint.name, attached->shown.hook);
            attached_.emplace(ifindex, std::move(*attached));
            added.push_back(ifindex);
            continue;
        }
        if (vanished(attached.error()))
            continue;
        result = std::unexpected(attached.error());
        if (!keep_going)
            break;
        spdlog::error("{}: its SYNs are not gated", attached.error().message);
    }
    if (result || keep_going) {
        const auto r = maps_.set_local(addresses.local, addresses.local_in_vrf, addresses.local_first);
        if (!r && result)
            result = r;
    }
    if (!result && !keep_going) {
        for (const std::uint32_t ifindex : added)
            detach(ifindex);
        return result;
    }
    for (const auto& [ifindex, endpoint] : current_.endpoints)
        if (!addresses.endpoints.contains(ifindex))
            detach(ifindex);
    current_ = addresses;
    return result;
}

std::vector<GateInterface> Attachments::list() const {
    std::vector<GateInterface> all;
    for (const auto& [ifindex, attached] : attached_)
        all.push_back(attached.shown);
    return all;
}

bool Attachments::all_can_replay() const {
    return std::ranges::all_of(attached_, [](const auto& each) { return each.second.shown.can_replay; });
}

} // namespace syngate
