// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/bpf_gate.hpp"

#include "control/registry.hpp"
#include "gate/frame.hpp"
#include "gate/gate_maps.hpp"
#include "gate/pins.hpp"
#include "gate/replayer.hpp"
#include "net/accept_room.hpp"
#include "probe/switches.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

namespace syngate {
namespace {

constexpr ino_t initial_time_namespace = 0xEFFFFFFA; // PROC_TIME_INIT_INO in the kernel's proc_ns.h

std::uint64_t dropped_in(const syngate_verdicts& v) {
    std::uint64_t sum = 0;
#define SYNGATE_IS_pass 0
#define SYNGATE_IS_drop 1
#define SYNGATE_IS_hold 0
#define SYNGATE_ADD_DROPS(name, verdict, meaning) sum += SYNGATE_IS_##verdict * v.name;
    SYNGATE_REASONS(SYNGATE_ADD_DROPS)
#undef SYNGATE_ADD_DROPS
    return sum;
}

class BpfGate final : public Gate {
public:
    BpfGate(Loop& loop, const BpfGateOptions& options) : loop_(loop), options_(options) {}

    Result<void> start() {
        if (const auto r = load(); !r)
            return r;
        auto watch = AddressWatch::start(loop_, [this](const Addresses& now) {
            // What cannot be attached is logged there; the other interfaces stay gated.
            (void)attachments_->follow(now, true);
        });
        if (!watch)
            return std::unexpected(watch.error());
        watch_ = std::move(*watch);
        if (const auto r = attachments_->begin(watch_->now()); !r)
            return r;
        pin();
        if (const int fd = maps_->ring_fd(); fd >= 0) {
            auto source = loop_.on_io(fd, EPOLLIN, [this](std::uint32_t) { replay_late(); });
            if (!source)
                return std::unexpected(source.error());
            late_ = std::move(*source);
        }
        return {};
    }

    Result<void> complete() override {
        if (complete_)
            return {};
        if (const auto r = attachments_->follow(watch_->now(), false); !r)
            return r;
        complete_ = true;
        if (options_.policy == Policy::hold && !attachments_->all_can_replay())
            warn_that_hold_is_drop();
        return {};
    }

    Result<void> stage(const PortSet& ports, Policy policy) override {
        unmap_ = {};
        if (policy == Policy::hold) {
            if (const auto r = maps_->map_parked(); !r)
                return r;
            if (options_.sockets)
                options_.sockets->prepare();
        }
        std::set<ListenAddress> transparent;
        if (const auto* rules = intercepts(); rules && !rules->empty()) {
            const auto all = options_.sockets->listeners();
            if (!all)
                return std::unexpected(all.error());
            transparent = intercepting_listeners(*all, *rules);
        }
        const auto generation = maps_->stage(ports, policy, transparent);
        if (!generation)
            return std::unexpected(generation.error());
        if (!closed_)
            at_close_ = maps_->verdicts();
        staged_ = *generation;
        ports_ = ports;
        return {};
    }

    Result<void> close(Duration lease) override {
        if (lease <= Duration::zero())
            return failure(Exit::usage, "the lease must be longer than 0");
        if (!closed_ && maps_->parked_is_mapped())
            replay_rest();
        const Time now = Clock::now();
        longest_ = now + options_.max_window;
        closed_at_ = now;
        lease_ = std::min(now + lease, longest_);
        maps_->close(staged_, now, lease_, longest_);
        closed_ = true;
        late_.enable(false); // from here on nothing is as urgent
        replayed_ = {};
        return {};
    }

    bool renew(Duration lease) override {
        const Time now = Clock::now();
        // A gate that opened by itself stays open: connections may be under way to whoever listens.
        if (!closed_ || now >= lease_ || now >= longest_)
            return false;
        lease_ = std::min(now + lease, longest_);
        maps_->set_lease(lease_);
        return true;
    }

    [[nodiscard]] bool is_closed() const override { return closed_ && Clock::now() < lease_; }

    Window open() override {
        if (!closed_)
            return {};
        const Time now = Clock::now();
        maps_->open();
        closed_ = false;
        replayed_.lease_lost = now >= lease_;
        replayed_.length = std::min(now, lease_) - closed_at_;
        if (maps_->parked_is_mapped()) {
            AcceptRoom room(options_.sockets, ports_, maps_->verdicts().parked - at_close_.parked, lease_);
            replay_rest(&room);
            unmap_soon();
        }
        late_.enable(true);
        const syngate_verdicts v = maps_->verdicts();
        replayed_.parked = v.parked - at_close_.parked;
        replayed_.dropped = dropped_in(v) - dropped_in(at_close_);
        at_close_ = v;
        return replayed_;
    }

    [[nodiscard]] GateStatus status() const override {
        GateStatus s;
        s.mode = "bpf";
        s.hook = attachments_->hook_name();
        s.policy = options_.policy;
        s.closed = is_closed();
        s.lease_left = s.closed ? lease_ - Clock::now() : Duration::zero();
        s.gated = ports_;
        s.interfaces = attachments_->list();
        const syngate_verdicts v = maps_->verdicts();
#define SYNGATE_SHOW(name, verdict, meaning) s.verdicts.emplace_back(#name, v.name);
        SYNGATE_REASONS(SYNGATE_SHOW)
#undef SYNGATE_SHOW
        if (divert_) {
            const syngate_divert_verdicts d = divert_->verdicts();
#define SYNGATE_SHOW(name, verdict, meaning) s.divert_verdicts.emplace_back(#name, d.name);
            SYNGATE_DIVERT_REASONS(SYNGATE_SHOW)
#undef SYNGATE_SHOW
        }
        s.pins = pins_.path();
        s.no_pins_because = no_pins_because_;
        s.no_divert_because = no_divert_because_;
        s.park_memory = maps_->park_memory();
        s.local_addresses = attachments_->local_addresses();
        return s;
    }

private:
    Result<void> load() {
        if (!switched_off(feature::ringbuf) && !switched_off(feature::live_frames)) {
            auto replayer = Replayer::load();
            if (replayer && (*replayer)->probe(loopback_ifindex))
                replayer_ = std::move(*replayer);
        }
        GateMaps::Plan plan{.owner_id = options_.owner_id,
                            .park_memory = options_.park_memory,
                            .can_hold = replayer_ != nullptr,
                            .for_xdp = options_.hook == Hook::xdp};
        if (const auto* rules = intercepts())
            plan.intercepts = *rules;
        auto maps = GateMaps::load(plan);
        if (!maps)
            return std::unexpected(maps.error());
        maps_ = std::move(*maps);
        if (options_.divert) {
            auto divert = DivertProgram::load(*options_.divert, *maps_);
            if (divert)
                divert_ = std::move(*divert);
            else if (options_.divert->needed)
                return std::unexpected(divert.error());
            else
                no_divert_because_ = divert.error().message;
        }
        attachments_ = std::make_unique<Attachments>(*maps_, replayer_.get(), divert_.get(), options_.hook);
        return {};
    }

    [[nodiscard]] const std::vector<Intercept>* intercepts() const {
        return options_.divert ? &options_.divert->intercepts : nullptr;
    }

    void pin() {
        if (switched_off(feature::bpffs)) {
            no_pins_because_ = off_text;
            return;
        }
        const auto here = network_namespace();
        auto directory = here ? PinDirectory::make(options_.pin_base, *here, options_.owner_id)
                              : Result<PinDirectory>(std::unexpected(here.error()));
        Result<void> pinned;
        if (directory)
            pinned = maps_->pin(directory->path());
        if (directory && pinned && divert_)
            pinned = divert_->pin(directory->path());
        if (directory && pinned) {
            pins_ = std::move(*directory);
            return;
        }
        no_pins_because_ = directory ? pinned.error().message : directory.error().message;
        spdlog::warn("the maps are not pinned, `syngate status` shows them: {}", no_pins_because_);
    }

    void warn_that_hold_is_drop() const {
        std::string devices;
        for (const auto& each : attachments_->list())
            if (!each.can_replay)
                devices += (devices.empty() ? "" : ", ") + each.name;
        spdlog::warn("policy hold acts as drop on {}: {}; a client that meets the window waits 1 s", devices,
                     replayer_ ? "the device cannot replay"
                               : "this kernel has no XDP live frames (Linux 5.18)");
    }

    void replay(const syngate_parked& head, std::span<const std::uint8_t> frame) {
        std::vector<std::uint8_t> whole = rebuild_frame(head, frame);
        complete_checksum(whole);
        if (const auto r = replayer_->replay(head.ifindex, whole); r) {
            ++replayed_.replayed;
            return;
        } else if (replayed_.replay_failed++ == 0)
            spdlog::warn("{}", r.error().message);
    }

    // Without `room` at once.
    void replay_rest(AcceptRoom* room = nullptr) {
        const auto consumed =
            maps_->consume([&](const syngate_parked& head, std::span<const std::uint8_t> frame) {
                if (room && !replayed_.lease_lost)
                    room->take(1);
                if (replayed_.lease_lost || (room && Clock::now() >= lease_))
                    ++replayed_.expired;
                else
                    replay(head, frame);
            });
        if (!consumed) {
            spdlog::error("{}", consumed.error().message);
            late_.enable(false); // what waits would wake us for ever
        }
    }

    // Parked by a CPU that had read the word before open() changed it.
    void replay_late() {
        if (closed_)
            return;
        replay_rest();
        unmap_soon();
    }

    // The next window is likely to be far away.
    void unmap_soon() {
        auto timer = loop_.after(unmap_after, [this] {
            if (!closed_)
                maps_->unmap_parked();
        });
        if (timer)
            unmap_ = std::move(*timer);
    }

    static constexpr std::uint32_t loopback_ifindex = 1; // LOOPBACK_IFINDEX in the kernel's net.h
    static constexpr Duration unmap_after = std::chrono::seconds(2);

    Loop& loop_;
    BpfGateOptions options_;
    std::unique_ptr<Replayer> replayer_; // null: nothing can be held
    std::unique_ptr<GateMaps> maps_;
    std::unique_ptr<DivertProgram> divert_; // null: no transparent proxying
    std::unique_ptr<Attachments> attachments_;
    std::unique_ptr<AddressWatch> watch_;
    PinDirectory pins_;
    std::string no_pins_because_;
    std::string no_divert_because_;
    Source late_, unmap_;
    PortSet ports_;
    std::uint32_t staged_ = 0;
    bool complete_ = false;
    bool closed_ = false;
    Time closed_at_;
    Time lease_;
    Time longest_;
    syngate_verdicts at_close_{};
    Window replayed_;
};

// Of what the gate needs or was asked to use.
Result<void> refuse_what_is_switched_off(Hook hook) {
    std::vector<std::string_view> needed{feature::bpf, feature::mmap_array, feature::lpm_trie,
                                         feature::sched_cls};
    if (hook == Hook::xdp)
        needed.insert(needed.end(), {feature::xdp, feature::xdp_link});
    else if (hook == Hook::tcx)
        needed.push_back(feature::tcx);
    else if (hook == Hook::tc || switched_off(feature::tcx))
        needed.push_back(feature::tc);
    for (const std::string_view name : needed)
        if (switched_off(name))
            return failure(Exit::impossible, fmt::format("{} is {}", name, off_text));
    return {};
}

} // namespace

Result<std::unique_ptr<Gate>> make_bpf_gate(Loop& loop, const BpfGateOptions& options) {
    if (const auto r = refuse_what_is_switched_off(options.hook); !r)
        return std::unexpected(r.error());
    // A lease is compared with the kernel's own clock, which a time namespace does not shift.
    struct stat time {};
    if (stat("/proc/self/ns/time", &time) == 0 && time.st_ino != initial_time_namespace)
        return failure(Exit::impossible,
                       "this process lives in a time namespace, whose clock is not the kernel's: a "
                       "lease could not be kept; start syngate outside of it");
    auto gate = std::make_unique<BpfGate>(loop, options);
    if (const auto r = gate->start(); !r)
        return std::unexpected(r.error());
    return gate;
}

} // namespace syngate
