// SPDX-License-Identifier: GPL-2.0-or-later
// A flood of SYNs against each way to drop them.
#include "common/benchmarks.hpp"
#include "packet/constant_program.hpp"
#include "packet/flood_scene.hpp"
#include "packet/xdp_filter.hpp"

#include "base/fd.hpp"
#include "gate/attachment.hpp"
#include "netns/sandbox.hpp"
#include "prog/gate_fixture.hpp"

#include <algorithm>
#include <bpf/libbpf.h>
#include <cstring>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <optional>
#include <stdexcept>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr std::uint16_t flooded = 80;

class Dropper {
public:
    virtual ~Dropper() = default;
};

// Our gate, closed with policy drop.
class OurGate : public Dropper {
public:
    enum class Where { tc, tcx, xdp_native, xdp_generic };

    OurGate(const FloodScene& scene, Where where) : scene_(scene), where_(where) {
        auto gate = prog::Gate::load();
        if (!gate)
            throw std::runtime_error(gate.error().message);
        gate_ = std::move(*gate);
        gate_->add_local(fmt::format("{}/32", FloodScene::server_v4));
        gate_->set_interface(scene.index, true);
        gate_->set_port(flooded, SYNGATE_POLICY_DROP);
        gate_->close();
        attach();
    }
    ~OurGate() override {
        if (where_ == Where::xdp_generic)
            ::bpf_xdp_detach(static_cast<int>(scene_.index), XDP_FLAGS_SKB_MODE, nullptr);
        attachment_.reset();
        if (where_ == Where::tc)
            run({"tc", "qdisc", "delete", "dev", scene_.device, "clsact"});
    }
    OurGate(const OurGate&) = delete;
    OurGate& operator=(const OurGate&) = delete;

private:
    void attach() {
        const int tc = gate_->program(prog::Hook::tc);
        const int xdp = gate_->program(prog::Hook::xdp);
        if (where_ == Where::xdp_generic) {
            if (const int r =
                    ::bpf_xdp_attach(static_cast<int>(scene_.index), xdp, XDP_FLAGS_SKB_MODE, nullptr);
                r < 0)
                throw std::runtime_error(fmt::format("cannot attach generic XDP: {}", std::strerror(-r)));
            return;
        }
        auto attached = where_ == Where::tcx  ? attach_tcx(tc, scene_.index, scene_.device)
                        : where_ == Where::tc ? attach_tc(tc, TcRole::gate, scene_.index, scene_.device, 1)
                                              : attach_xdp(xdp, scene_.index, scene_.device);
        if (!attached)
            throw std::runtime_error(attached.error().message);
        attachment_ = std::move(*attached);
    }

    const FloodScene& scene_;
    Where where_;
    std::unique_ptr<prog::Gate> gate_;
    std::unique_ptr<Attachment> attachment_;
};

class Commands : public Dropper {
public:
    Commands(const std::vector<Argv>& begin, std::vector<Argv> end) : end_(std::move(end)) {
        for (const auto& argv : begin)
            must_run(argv);
    }
    ~Commands() override {
        for (const auto& argv : end_)
            run(argv);
    }
    Commands(const Commands&) = delete;
    Commands& operator=(const Commands&) = delete;

private:
    std::vector<Argv> end_;
};

class FilterByXdp : public Dropper {
public:
    explicit FilterByXdp(const FloodScene& scene) : filter_(scene.device, "native", flooded) {}

private:
    XdpFilter filter_;
};

// As much as any XDP program could drop here: what is left is the device's.
class Everything : public Dropper {
public:
    explicit Everything(const FloodScene& scene) {
        const Fd program = load_constant(BPF_PROG_TYPE_XDP, XDP_DROP);
        auto attached = attach_xdp(program.get(), scene.index, scene.device);
        if (!attached)
            throw std::runtime_error(attached.error().message);
        attachment_ = std::move(*attached);
    }

private:
    std::unique_ptr<Attachment> attachment_;
};

struct Way {
    std::string name;
    std::function<std::unique_ptr<Dropper>(const FloodScene&)> start;
};

Way ours(const std::string& name, OurGate::Where where) {
    return {name, [where](const FloodScene& scene) { return std::make_unique<OurGate>(scene, where); }};
}

Way iptables(const std::string& name, const std::string& table, const std::string& chain) {
    const auto change = [=](const char* how) {
        return Argv{"iptables", "-t", table, how, chain, "-p", "tcp", "--dport", std::to_string(flooded),
                    "--syn",    "-j", "DROP"};
    };
    return {name, [=](const FloodScene&) {
                return std::make_unique<Commands>(std::vector<Argv>{change("-I")},
                                                  std::vector<Argv>{change("-D")});
            }};
}

Way nftables() {
    return {"nft, netdev ingress", [](const FloodScene& scene) {
                const auto rules = fmt::format(
                    "table netdev flood {{ chain in {{ type filter hook ingress device {} priority 0; "
                    "tcp dport {} tcp flags & (syn|ack) == syn drop; }}; }}",
                    scene.device, flooded);
                return std::make_unique<Commands>(std::vector<Argv>{{"nft", rules}},
                                                  std::vector<Argv>{{"nft", "delete table netdev flood"}});
            }};
}

std::vector<Way> all_ways() {
    return {
        ours("syngate, XDP native", OurGate::Where::xdp_native),
        ours("syngate, XDP generic", OurGate::Where::xdp_generic),
        ours("syngate, TCX", OurGate::Where::tcx),
        ours("syngate, TC", OurGate::Where::tc),
        {"xdp-filter, native", [](const FloodScene& scene) { return std::make_unique<FilterByXdp>(scene); }},
        {"XDP native, drops everything",
         [](const FloodScene& scene) { return std::make_unique<Everything>(scene); }},
        nftables(),
        iptables("iptables, raw PREROUTING", "raw", "PREROUTING"),
        iptables("iptables, INPUT", "filter", "INPUT")};
}

std::vector<std::uint8_t> syn(const FloodScene& scene) {
    return scene.frame()
        .ipv4({.src = FloodScene::client_v4, .dst = FloodScene::server_v4})
        .tcp({.dport = flooded, .options = 20})
        .bytes();
}

} // namespace

void measure_flood(const Settings& settings) {
    Result result(settings, "flood");
    const Duration length = settings.quick ? 500ms : 3s;
    const int rounds = settings.quick ? 2 : 5;
    result.parameters() = {{"rounds", rounds}, {"seconds", std::chrono::duration<double>(length).count()}};
    std::optional<FloodScene> scene;
    try {
        scene.emplace();
    } catch (const std::exception& error) {
        result.impossible("a flood", error.what());
        return result.write();
    }
    auto ways = all_ways();
    std::vector<Json> runs(ways.size(), Json::array());
    std::vector<std::string> why(ways.size());
    for (int round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < ways.size(); ++i)
            try {
                if (!why[i].empty())
                    continue;
                const auto dropper = ways[i].start(*scene);
                runs[i].push_back(scene->flood(syn(*scene), length));
                progress(fmt::format("{:<28} {:.0f} packets a second of CPU time", ways[i].name,
                                     runs[i].back()["packets_per_cpu_second"].get<double>()));
            } catch (const std::exception& error) {
                why[i] = error.what();
                result.impossible(ways[i].name, why[i]);
            }
    for (std::size_t i = 0; i < ways.size(); ++i)
        if (!runs[i].empty())
            result.add("ways", {{"name", ways[i].name}, {"runs", runs[i]}});
    result.write();
}

} // namespace syngate::bench
