// SPDX-License-Identifier: GPL-2.0-or-later
// Parked SYNs: what they take while the gate is closed, and how long it takes to replay them.
#include "scale/scale.hpp"

#include "common/link.hpp"
#include "event/loop.hpp"
#include "gate/bpf_gate.hpp"
#include "netns/robust_agent.hpp"
#include "netns/sandbox.hpp"
#include "prog/packet.hpp"

#include <fmt/format.h>
#include <fstream>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr int ports_an_address = 50'000;
constexpr auto second_client = "10.77.0.3";

double resident_kib() {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("VmRSS:"))
            return std::stod(line.substr(6));
    return 0;
}

class Parking {
public:
    explicit Parking(std::size_t park_memory)
        : loop_(must(Loop::make())), gate_(must(make_bpf_gate(*loop_, {.hook = Hook::tcx,
                                                                       .policy = Policy::hold,
                                                                       .park_memory = park_memory,
                                                                       .pin_base = "/sys/fs/bpf/syngate"}))),
          program_(ClientHost::server_device) {
        must_run(
            {"ip", "address", "add", fmt::format("{}/24", second_client), "dev", ClientHost::client_device},
            {.where = &hosts_.client});
        must(gate_->stage({port}, Policy::hold));
    }

    // That many SYNs of different clients, and what became of them.
    Json run(int count) {
        const double resident = resident_kib();
        must(gate_->close(30s));
        const double parking = time_us([&] {
            for (int i = 0; i < count; ++i)
                program_.run(syn(i));
        });
        Window window;
        const double replay = time_us([&] { window = gate_->open(); });
        return {{"syns", count},
                {"parked", window.parked},
                {"replayed", window.replayed},
                {"replay_failed", window.replay_failed},
                {"dropped", window.dropped},
                {"park_us", parking},
                {"replay_us", replay},
                {"park_memory", gate_->status().park_memory},
                {"resident_growth_kib", resident_kib() - resident}};
    }

private:
    [[nodiscard]] std::vector<std::uint8_t> syn(int number) const {
        return prog::Packet()
            .eth({.dst = server_mac_, .src = client_mac_})
            .ipv4({.src = number < ports_an_address ? ClientHost::client_v4 : second_client,
                   .dst = ClientHost::server_v4})
            .tcp({.sport = static_cast<std::uint16_t>(10'000 + number % ports_an_address),
                  .dport = port,
                  .options = 20})
            .bytes();
    }

    ClientHost hosts_;
    robust::Listener listener_{port}; // its SYN-ACKs are answered by the client's RST
    std::unique_ptr<Loop> loop_;
    std::unique_ptr<Gate> gate_;
    TcxProgram program_;
    std::uint64_t server_mac_ = mac_of(hosts_.server, ClientHost::server_device);
    std::uint64_t client_mac_ = mac_of(hosts_.client, ClientHost::client_device);
};

} // namespace

void measure_parked(const Settings& settings, Result& result) {
    const int rounds = settings.quick ? 1 : 5;
    try {
        {
            Parking parking(64U << 20);
            for (const int count : {1, 10, 100, 1000, 10'000, 100'000})
                for (int i = 0; i < rounds; ++i)
                    result.add("parked", parking.run(count));
        }
        // What the default holds: the rest is dropped, and counted.
        Parking standard(BpfGateOptions{}.park_memory);
        Json full = standard.run(100'000);
        progress(fmt::format("the park memory of {} bytes holds {} SYNs", full["park_memory"].dump(),
                             full["parked"].dump()));
        result.parameters()["default_park"] = std::move(full);
    } catch (const std::exception& error) {
        result.impossible("parked SYNs", error.what());
    }
}

} // namespace syngate::bench
