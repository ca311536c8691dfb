// SPDX-License-Identifier: GPL-2.0-or-later
// Interfaces: how long the gate's start takes, which attaches to each of them, and whether closing it
// notices.
#include "scale/scale.hpp"

#include "event/loop.hpp"
#include "gate/bpf_gate.hpp"
#include "netns/sandbox.hpp"

#include <fmt/format.h>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

// Each with an address of its own: only these are endpoints. Its peer has none.
void make_devices(int count) {
    std::string commands;
    for (int i = 0; i < count; ++i)
        commands += fmt::format("link add d{0} type veth peer name p{0}\n"
                                "addr add 10.{1}.{2}.1/24 dev d{0}\n"
                                "link set d{0} up\n",
                                i, 100 + i / 250, i % 250);
    must_run({"ip", "-batch", write_file("devices", commands)});
}

Json measure(int count, int rounds) {
    const Namespace where;
    const Inside inside(where);
    make_devices(count);
    const auto loop = must(Loop::make());
    std::vector<double> start, close, stop;
    for (int i = 0; i < rounds; ++i) {
        std::unique_ptr<Gate> gate;
        start.push_back(time_us([&] {
            gate = must(make_bpf_gate(*loop, {.policy = Policy::drop, .pin_base = "/sys/fs/bpf/syngate"}));
        }));
        must(gate->stage({80, 443}, Policy::drop));
        close.push_back(time_us([&] { must(gate->close(30s)); }));
        gate->open();
        stop.push_back(time_us([&] { gate.reset(); }));
    }
    progress(fmt::format("{} interfaces: started in {:.1f} ms, closed in {:.1f} us", count,
                         start.front() / 1000, close.front()));
    return {{"interfaces", count}, {"start_us", start}, {"close_us", close}, {"stop_us", stop}};
}

} // namespace

void measure_interfaces(const Settings& settings, Result& result) {
    for (const int count : {1, 10, 100, 500})
        try {
            if (settings.quick && count > 100)
                throw std::runtime_error("left out by --quick");
            result.add("interfaces", measure(count, settings.quick ? 1 : 5));
        } catch (const std::exception& error) {
            result.impossible(fmt::format("{} interfaces", count), error.what());
        }
}

} // namespace syngate::bench
