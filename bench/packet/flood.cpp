// SPDX-License-Identifier: GPL-2.0-or-later
// A flood of SYNs against each way to drop them. The device's NAPI runs in a thread of its own (threaded
// NAPI), so that what dropping costs is that thread's CPU time, and what making the flood costs is not in it.
#include "common/benchmarks.hpp"
#include "common/host.hpp"
#include "common/link.hpp"
#include "packet/constant_program.hpp"
#include "packet/generator.hpp"
#include "packet/xdp_filter.hpp"

#include "base/fd.hpp"
#include "gate/attachment.hpp"
#include "netns/sandbox.hpp"
#include "prog/gate_fixture.hpp"

#include <algorithm>
#include <bpf/libbpf.h>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr auto server_v4 = "10.78.0.1";
constexpr auto client_v4 = "10.78.0.2";
constexpr std::uint16_t flooded = 80;

// Kernel threads are told apart by the name of their device only, and other sandboxes' are among them.
std::string fresh_name(const char* begin) {
    std::random_device random;
    return fmt::format("{}{:06x}", begin, random() & 0xffffffU);
}

// Two namespaces and a veth, whose server's end has its NAPI in a thread.
struct Scene {
    Namespace server = Namespace::current();
    Namespace client;
    std::string device = fresh_name("fs");
    std::string peer = fresh_name("fc");
    std::uint32_t index = 0;
    std::vector<std::uint8_t> syn;

    Scene() {
        connect_by_veth({server, device, fmt::format("{}/24", server_v4), ""},
                        {client, peer, fmt::format("{}/24", client_v4), ""});
        index = ::if_nametoindex(device.c_str());
        syn = prog::Packet()
                  .eth({.dst = mac_of(server, device), .src = mac_of(client, peer)})
                  .ipv4({.src = client_v4, .dst = server_v4})
                  .tcp({.dport = flooded, .options = 20})
                  .bytes();
        must_run({"ethtool", "-K", device, "gro", "on"}); // a veth has a NAPI with this, or with XDP
        std::ofstream file(fmt::format("{}/{}/threaded", device_files(), device));
        file << 1 << std::flush;
        if (!file)
            throw std::runtime_error("this kernel's veth has no threaded NAPI (Linux 5.12)");
    }

    [[nodiscard]] std::uint64_t received() const {
        std::uint64_t packets = 0;
        std::ifstream(fmt::format("{}/{}/statistics/rx_packets", device_files(), device)) >> packets;
        return packets;
    }
};

// Segments that came as far as TCP.
std::uint64_t tcp_segments() {
    std::ifstream file("/proc/thread-self/net/snmp");
    for (std::string line; std::getline(file, line);) {
        std::uint64_t in = 0;
        if (std::sscanf(line.c_str(), "Tcp: %*u %*u %*u %*d %*u %*u %*u %*u %*u %lu", &in) == 1)
            return in;
    }
    return 0;
}

class Dropper {
public:
    virtual ~Dropper() = default;
};

// Our gate, closed with policy drop.
class OurGate : public Dropper {
public:
    enum class Where { tc, tcx, xdp_native, xdp_generic };

    OurGate(const Scene& scene, Where where) : scene_(scene), where_(where) {
        auto gate = prog::Gate::load();
        if (!gate)
            throw std::runtime_error(gate.error().message);
        gate_ = std::move(*gate);
        gate_->add_local(fmt::format("{}/32", server_v4));
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

    const Scene& scene_;
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
    explicit FilterByXdp(const Scene& scene) : filter_(scene.device, "native", flooded) {}

private:
    XdpFilter filter_;
};

// As much as any XDP program could drop here: what is left is the device's.
class Everything : public Dropper {
public:
    explicit Everything(const Scene& scene) {
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
    std::function<std::unique_ptr<Dropper>(const Scene&)> start;
};

Way ours(const std::string& name, OurGate::Where where) {
    return {name, [where](const Scene& scene) { return std::make_unique<OurGate>(scene, where); }};
}

Way iptables(const std::string& name, const std::string& table, const std::string& chain) {
    const auto change = [=](const char* how) {
        return Argv{"iptables", "-t", table, how, chain, "-p", "tcp", "--dport", std::to_string(flooded),
                    "--syn",    "-j", "DROP"};
    };
    return {name, [=](const Scene&) {
                return std::make_unique<Commands>(std::vector<Argv>{change("-I")},
                                                  std::vector<Argv>{change("-D")});
            }};
}

Way nftables() {
    return {"nft, netdev ingress", [](const Scene& scene) {
                const auto rules = fmt::format(
                    "table netdev flood {{ chain in {{ type filter hook ingress device {} priority 0; "
                    "tcp dport {} tcp flags & (syn|ack) == syn drop; }}; }}",
                    scene.device, flooded);
                return std::make_unique<Commands>(std::vector<Argv>{{"nft", rules}},
                                                  std::vector<Argv>{{"nft", "delete table netdev flood"}});
            }};
}

std::vector<Way> all_ways() {
    return {ours("syngate, XDP native", OurGate::Where::xdp_native),
            ours("syngate, XDP generic", OurGate::Where::xdp_generic),
            ours("syngate, TCX", OurGate::Where::tcx),
            ours("syngate, TC", OurGate::Where::tc),
            {"xdp-filter, native", [](const Scene& scene) { return std::make_unique<FilterByXdp>(scene); }},
            {"XDP native, drops everything",
             [](const Scene& scene) { return std::make_unique<Everything>(scene); }},
            nftables(),
            iptables("iptables, raw PREROUTING", "raw", "PREROUTING"),
            iptables("iptables, INPUT", "filter", "INPUT")};
}

Json measure(const Scene& scene, const Way& way, Duration length) {
    const auto dropper = way.start(scene);
    std::optional<Generator> flood;
    {
        const Inside inside(scene.client);
        flood.emplace(::if_nametoindex(scene.peer.c_str()), scene.syn);
    }
    std::this_thread::sleep_for(length / 10); // the time of a queue's filling is not measured
    const auto packets = scene.received();
    const auto segments = tcp_segments();
    const auto sent = flood->sent();
    const double cpu = kernel_thread_seconds("napi/" + scene.device);
    const Time begin = Clock::now();
    std::this_thread::sleep_for(length);
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    const double used = kernel_thread_seconds("napi/" + scene.device) - cpu;
    const auto dropped = static_cast<double>(scene.received() - packets);
    const auto leaked = static_cast<double>(tcp_segments() - segments);
    return {{"packets", dropped},
            {"seconds", took},
            {"sent", static_cast<double>(flood->sent() - sent)},
            {"cpu_seconds", used},
            {"packets_per_cpu_second", used > 0 ? dropped / used : 0.},
            {"reached_tcp", leaked}};
}

} // namespace

void measure_flood(const Settings& settings) {
    Result result(settings, "flood");
    const Duration length = settings.quick ? 500ms : 3s;
    const int rounds = settings.quick ? 2 : 5;
    result.parameters() = {{"rounds", rounds}, {"seconds", std::chrono::duration<double>(length).count()}};
    std::optional<Scene> scene;
    try {
        scene.emplace();
        const Inside inside(scene->client);
        const Generator once(::if_nametoindex(scene->peer.c_str()), scene->syn);
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
                runs[i].push_back(measure(*scene, ways[i], length));
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
