// SPDX-License-Identifier: GPL-2.0-or-later
#include "iptables/iptables_gate.hpp"

#include "iptables/extensions.hpp"
#include "iptables/lease_switch.hpp"
#include "iptables/own_rules.hpp"
#include "iptables/packet_queue.hpp"
#include "iptables/rules_transparent.hpp"
#include "iptables/variant.hpp"
#include "net/accept_room.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <utility>

namespace syngate {
namespace {

// After a window nobody may wait long: the server has been reloaded, and its agent has signals to serve.
constexpr Duration removal_lock_wait = std::chrono::seconds(1);

constexpr Duration open_again_after = std::chrono::milliseconds(100);

class IptablesGate final : public Gate {
public:
    IptablesGate(Loop& loop, const IptablesGateOptions& options) : loop_(loop), options_(options) {}
    ~IptablesGate() override {
        open();
        // With what was made for the rules, which stays till now: taking it away empties every NFQUEUE of the
        // network namespace.
        for (const auto& family : families_)
            if (const auto r = remove_parts(family.tool, rules::mangle, options_.owner_id, rules::gate_parts);
                !r)
                spdlog::warn("{}; `syngate cleanup` removes them", r.error().message);
    }

    Result<void> start(const Variant& variant) {
        variant_ = variant.name;
        if (const auto r = choose(variant); !r)
            return r;
        switch_ = make_lease_switch(families_.front().gate.lease_by, families_);
        if (!queue_)
            return {};
        auto source = loop_.on_io(queue_->fd(), EPOLLIN, [this](std::uint32_t) { on_packets(); });
        if (!source)
            return std::unexpected(source.error());
        arrived_ = std::move(*source);
        return {};
    }

    Result<void> stage(const PortSet& ports, Policy policy) override {
        if (const auto r = remove(usual_lock_wait); !r)
            return std::unexpected(r.error());
        holds_ = policy == Policy::hold && queue_;
        if (holds_ && options_.sockets)
            options_.sockets->prepare();
        Result<std::vector<Listener>> listeners;
        if (!options_.intercepts.empty() && !(listeners = options_.sockets->listeners()))
            return std::unexpected(listeners.error());
        for (auto& family : families_) {
            family.gate.intercepted_to = rules::intercepted_to(*listeners, family.tool.ipv6);
            family.gate.made =
                note_makings(family.tool, options_.owner_id, rules::mangle, rules::hooks_of(family.gate));
            family.gate.hold = holds_;
            family.gate.lease_seconds = recent_seconds(options_.lease);
            staged_ = true;
            if (auto r = family.tool.apply("cannot put up the gate", rules::staged(family.gate, ports)); !r) {
                (void)remove(removal_lock_wait);
                return r;
            }
        }
        policy_ = policy;
        ports_ = ports;
        return {};
    }

    Result<void> close(Duration lease) override {
        if (lease <= Duration::zero())
            return failure(Exit::usage, "the lease must be longer than 0");
        on_packets(); // of the window before, if any
        window_ = {};
        overflown_before_ = queue_ ? queue_->overflown() : 0;
        closed_at_ = Clock::now();
        longest_ = closed_at_ + options_.max_window;
        lease_ = std::min(closed_at_ + lease, longest_);
        if (auto r = switch_->close(lease_ - closed_at_); !r) {
            if (!switch_->open()) // one family may be closed
                open_again_until(Clock::now() + switch_->limit() + std::chrono::seconds(1));
            return r;
        }
        closed_ = true;
        ajar_.reset();
        opened_at_.reset();
        watch_lease();
        return {};
    }

    bool renew(Duration lease) override {
        const Time now = Clock::now();
        if (!is_closed() || now >= longest_)
            return false;
        lease_ = std::min(now + lease, longest_);
        // Not beyond the longest window: whoever is killed then has opened by its end.
        if (now + switch_->limit() <= longest_)
            if (const auto r = switch_->prolong(); !r)
                spdlog::warn("{}", r.error().message);
        return is_closed();
    }

    [[nodiscard]] bool is_closed() const override {
        return closed_ && !opened_at_ && Clock::now() < std::min(lease_, switch_->until());
    }

    Window open() override {
        if (!closed_)
            return {};
        if (!is_closed() && !opened_at_)
            opened_at_ = std::min({Clock::now(), lease_, switch_->until()});
        lease_watch_.reset();
        closed_ = false;
        const auto opened = switch_->open();
        window_.length = opened_at_.value_or(Clock::now()) - closed_at_;
        window_.lease_lost = opened_at_.has_value();
        if (!opened)
            spdlog::warn("{}; it opens by itself within {}", opened.error().message,
                         format_duration(switch_->limit()));
        verdict_ = opened && !window_.lease_lost ? PacketQueue::Verdict::again : PacketQueue::Verdict::drop;
        release();
        const auto judged = remove(removal_lock_wait);
        if (!judged)
            spdlog::warn("{}; tried again later", judged.error().message);
        if (!opened && !judged)
            open_again_until(Clock::now() + switch_->limit());
        release(); // a SYN that was on its way into the queue
        verdict_ = PacketQueue::Verdict::again;
        if (holds_)
            window_.dropped = queue_->overflown() - overflown_before_;
        else
            window_.dropped = judged.value_or(0);
        count();
        return window_;
    }

    [[nodiscard]] GateStatus status() const override {
        GateStatus s;
        s.mode = "iptables";
        s.hook = variant_;
        s.policy = options_.policy;
        s.closed = is_closed();
        s.lease_left = s.closed ? lease_ - Clock::now() : Duration::zero();
        s.gated = ports_;
        s.verdicts = {{"dropped", dropped_},
                      {"hold_unavailable", hold_unavailable_},
                      {"park_full", park_full_},
                      {"parked", parked_ + (queue_ ? queue_->waiting() : 0)}};
        s.no_pins_because = "iptables mode has no maps";
        s.park_memory = queue_ ? options_.park_memory : 0;
        return s;
    }

private:
    // Which of the variant's programs and the kernel's extensions serve.
    Result<void> choose(const Variant& variant) {
        std::string no_ipv6 = variant.no_ipv6_because;
        Extensions lacking; // in one family at least
        rules::ExtensionSet wanted{rules::Extension::multiport, rules::Extension::recent,
                                   rules::Extension::time, rules::Extension::nfqueue,
                                   rules::Extension::addrtype};
        for (const Tool& tool : variant.tools) {
            const auto found = try_extensions(tool, options_.owner_id, wanted);
            if (!found && found.error().exit == Exit::busy)
                return std::unexpected(found.error());
            if (!found && !tool.ipv6)
                return failure(Exit::impossible, found.error().message);
            if (!found) {
                no_ipv6 = found.error().message;
                continue;
            }
            lacking.missing.insert(found->missing.begin(), found->missing.end());
            families_.push_back({tool, {.owner = options_.owner_id, .ipv6 = tool.ipv6}});
        }
        if (!no_ipv6.empty())
            spdlog::warn("there is no gate for IPv6: {}; SYNs over IPv6 pass at all times", no_ipv6);
        using rules::Extension;
        if (!lacking.has(Extension::recent) && !lacking.has(Extension::time))
            return failure(Exit::impossible, "a gate that opens by itself needs xt_recent or xt_time; " +
                                                 lacking.why_not({Extension::recent, Extension::time}));
        if (!lacking.has(Extension::recent))
            spdlog::info("the lease is kept by xt_time, in whole seconds of the wall clock; xt_recent: {}",
                         lacking.missing[Extension::recent]);
        if (!lacking.has(Extension::multiport))
            spdlog::info("there is a rule for each range of ports; xt_multiport: {}",
                         lacking.missing[Extension::multiport]);
        auto queue = lacking.has(Extension::nfqueue)
                         ? PacketQueue::open(options_.owner_id, options_.park_memory)
                         : failure(Exit::impossible, lacking.missing[Extension::nfqueue]);
        if (queue)
            queue_ = std::move(*queue);
        else if (options_.policy == Policy::hold)
            spdlog::warn("policy hold acts as drop, a client that meets the window waits 1 s; nfqueue: {}",
                         queue.error().message);
        for (auto& family : families_) {
            family.gate.lease_by =
                lacking.has(Extension::recent) ? rules::LeaseBy::recent : rules::LeaseBy::time;
            family.gate.multiport = lacking.has(Extension::multiport);
            family.gate.queue = queue_ ? queue_->number() : std::uint16_t{0};
            family.gate.addrtype = lacking.has(Extension::addrtype);
            if (family.gate.addrtype) // else nothing is intercepted either
                family.gate.intercepts = options_.intercepts;
        }
        return {};
    }

    // At the lease's end the gate opens, whoever forgets to open it.
    void watch_lease() {
        const Time end = std::min(lease_, switch_->until());
        auto source = loop_.after(std::max(end - Clock::now(), Duration(0)), [this] {
            if (is_closed()) // renewed
                return watch_lease();
            opened_at_ = std::min({Clock::now(), lease_, switch_->until()});
            if (const auto r = switch_->open(); !r)
                spdlog::warn("{}", r.error().message);
            window_.lease_lost = true; // nothing is held any longer
            verdict_ = PacketQueue::Verdict::drop;
            release();
        });
        if (source)
            lease_watch_ = std::move(*source);
        else // the kernel's limit remains
            spdlog::warn("{}", source.error().message);
    }

    // With nobody else left to open it. What comes meanwhile is dropped: sent through the rules again it
    // would come back.
    void open_again_until(Time lease_end) {
        auto again = loop_.after(open_again_after, [this, lease_end] {
            ajar_.reset();
            if (const auto r = switch_->open(); !r && Clock::now() < lease_end) {
                spdlog::warn("{}; tried again", r.error().message);
                open_again_until(lease_end);
            }
        });
        if (again)
            ajar_ = std::move(*again);
        else // the kernel's limit remains
            spdlog::warn("{}", again.error().message);
    }

    void on_packets() {
        if (!queue_)
            return;
        queue_->take_note();
        if (queue_->waiting() == 0 || closed_)
            return;
        parked_ += queue_->judge(ajar_ ? PacketQueue::Verdict::drop : PacketQueue::Verdict::again);
    }

    // Those that will be replayed, as they find room in the server's queues.
    void release() {
        if (!queue_)
            return;
        queue_->take_note();
        AcceptRoom room(options_.sockets, ports_, queue_->waiting(), lease_);
        for (;; queue_->take_note()) {
            if (queue_->waiting() == 0)
                return;
            using Verdict = PacketQueue::Verdict;
            const std::uint64_t most =
                verdict_ == Verdict::again ? room.take(queue_->waiting()) : queue_->waiting();
            const bool expired = window_.lease_lost || Clock::now() >= lease_;
            const bool again = verdict_ == Verdict::again && !expired;
            const std::uint64_t judged = queue_->judge(again ? Verdict::again : Verdict::drop, most);
            if (judged == 0)
                return;
            window_.parked += judged;
            if (again)
                window_.replayed += judged;
            else if (expired)
                window_.expired += judged;
            else
                window_.replay_failed += judged;
        }
    }

    void count() {
        parked_ += window_.parked;
        if (holds_)
            park_full_ += window_.dropped;
        else
            (policy_ == Policy::hold ? hold_unavailable_ : dropped_) += window_.dropped;
    }

    // Returns the packets that came to a verdict.
    Result<std::uint64_t> remove(Duration lock_wait) {
        if (!staged_)
            return 0;
        std::uint64_t judged = 0;
        for (const auto& family : families_) {
            const auto saved = remove_parts(family.tool, rules::mangle, options_.owner_id, rules::gate_parts,
                                            lock_wait, true);
            if (!saved)
                return std::unexpected(saved.error());
            judged += rules::judged(*saved, options_.owner_id);
        }
        staged_ = false;
        return judged;
    }

    Loop& loop_;
    IptablesGateOptions options_;
    std::string variant_;
    std::vector<GateFamily> families_;   // IPv4 first
    std::unique_ptr<PacketQueue> queue_; // null: nothing can be held
    std::unique_ptr<LeaseSwitch> switch_;
    Source arrived_;
    Source lease_watch_;
    Source ajar_;         // while what cannot be opened may be closed
    bool staged_ = false; // some of our rules may be there
    PortSet ports_;
    Policy policy_ = Policy::hold;
    bool holds_ = false;
    bool closed_ = false;
    Time closed_at_;
    Time lease_;
    Time longest_;
    std::optional<Time> opened_at_; // by itself
    PacketQueue::Verdict verdict_ = PacketQueue::Verdict::again;
    std::uint64_t overflown_before_ = 0;
    Window window_;
    std::uint64_t dropped_ = 0;
    std::uint64_t hold_unavailable_ = 0;
    std::uint64_t park_full_ = 0;
    std::uint64_t parked_ = 0;
};

} // namespace

Result<std::unique_ptr<Gate>> make_iptables_gate(Loop& loop, const IptablesGateOptions& options) {
    const auto variants = find_variants();
    if (variants.empty())
        return failure(Exit::impossible,
                       "no iptables is installed (iptables, iptables-save and iptables-restore), or "
                       "every one is switched off by SYNGATE_NO_FEATURE");
    std::string why;
    for (const Variant& variant : variants) {
        auto gate = std::make_unique<IptablesGate>(loop, options);
        const auto started = gate->start(variant);
        if (started)
            return gate;
        if (started.error().exit == Exit::busy)
            return std::unexpected(started.error());
        why +=
            fmt::format("{}iptables {}: {}", why.empty() ? "" : "; ", variant.name, started.error().message);
    }
    return failure(Exit::impossible, why);
}

} // namespace syngate
