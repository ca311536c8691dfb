// SPDX-License-Identifier: GPL-2.0-or-later
#include "steer/bpf_steering.hpp"

#include "base/grace_period.hpp"
#include "steer/slots.hpp"
#include "steer/socket_capture.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

class BpfSteering final : public Steering {
public:
    Result<void> start(const BpfSteeringOptions& options) {
        auto maps = SteerMaps::load(options.owner_id);
        if (!maps)
            return std::unexpected(maps.error());
        maps_ = std::move(*maps);
        auto link = maps_->attach();
        if (!link)
            return std::unexpected(link.error());
        link_ = std::move(*link);
        if (!options.pins.empty())
            if (const auto r = maps_->pin(options.pins); !r)
                spdlog::warn("the steering maps are not pinned, `syngate status` shows them: {}",
                             r.error().message);
        return {};
    }

    Result<void> steer(const std::vector<SteerRule>& rules) override {
        Generation next{.number = ++numbered_, .rules = {}, .runs = {}};
        if (const auto r = stage(next, rules); !r) {
            forget(next);
            return r;
        }
        maps_->activate(next.number);
        wait_for_packets_under_way();
        forget(active_);
        active_ = std::move(next);
        return {};
    }

    void release() override {
        maps_->activate(0);
        forget(active_);
        active_ = {};
    }

    [[nodiscard]] SteeringStatus status() const override {
        SteeringStatus s;
        s.mode = "bpf";
        s.generation = active_.number;
        for (const ListenAddress& at : active_.rules) {
            const syngate_steer_rule rule = maps_->rule(active_.number, at);
            std::size_t open = 0;
            for (std::uint32_t i = 0; i < rule.sockets; ++i)
                open += maps_->cookie_in(rule.first_slot + i) != 0 ? 1 : 0;
            s.rules.push_back({to_string(at), at.port, rule.sockets, open, rule.steered, rule.no_listener});
        }
        const syngate_steer_verdicts v = maps_->verdicts();
#define SYNGATE_SHOW(name, meaning) s.verdicts.emplace_back(#name, v.name);
        SYNGATE_STEER_REASONS(SYNGATE_SHOW)
#undef SYNGATE_SHOW
        return s;
    }

private:
    struct Run {
        std::uint32_t first = 0, count = 0;
    };
    struct Generation {
        std::uint32_t number = 0; // 0: nothing
        std::vector<ListenAddress> rules;
        std::vector<Run> runs;
    };

    // Everything but the step that makes it hold.
    Result<void> stage(Generation& generation, const std::vector<SteerRule>& rules) {
        std::vector<CaptureWant> wants;
        std::vector<syngate_steer_rule> entries;
        for (const SteerRule& rule : rules) {
            syngate_steer_rule entry{};
            if (!rule.to.empty()) {
                const auto count = static_cast<std::uint32_t>(rule.to.size());
                const auto first = slots_.take(count);
                if (!first)
                    return failure(
                        Exit::failed,
                        fmt::format("cannot steer {}: its {} sockets and those of the other ports are "
                                    "more than {}, two generations together",
                                    to_string(rule.at), count, SYNGATE_STEER_SLOTS));
                generation.runs.push_back({*first, count});
                entry.first_slot = *first;
                entry.sockets = count;
                for (std::uint32_t i = 0; i < count; ++i)
                    wants.push_back({rule.to[i], *first + i});
            }
            entries.push_back(entry);
        }
        if (const auto r = capture_listeners(*maps_, wants); !r)
            return r;
        for (std::size_t i = 0; i < rules.size(); ++i) {
            if (const auto r = maps_->set_rule(generation.number, rules[i].at, entries[i]); !r)
                return r;
            generation.rules.push_back(rules[i].at);
        }
        return {};
    }

    void forget(const Generation& generation) {
        for (const ListenAddress& at : generation.rules)
            maps_->remove_rule(generation.number, at);
        for (const auto& [first, count] : generation.runs) {
            for (std::uint32_t slot = first; slot < first + count; ++slot)
                maps_->clear_slot(slot);
            slots_.give_back(first, count);
        }
    }

    std::unique_ptr<SteerMaps> maps_;
    Fd link_;
    Slots slots_{SYNGATE_STEER_SLOTS};
    Generation active_;
    std::uint32_t numbered_ = 0;
};

} // namespace

Result<std::unique_ptr<Steering>> make_bpf_steering(const BpfSteeringOptions& options) {
    auto steering = std::make_unique<BpfSteering>();
    if (const auto r = steering->start(options); !r)
        return std::unexpected(r.error());
    return steering;
}

} // namespace syngate
