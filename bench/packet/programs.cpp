// SPDX-License-Identifier: GPL-2.0-or-later
// What a packet costs in each program, by BPF_PROG_RUN: no device, no stack, no second CPU.
#include "common/benchmarks.hpp"
#include "packet/constant_program.hpp"
#include "packet/xdp_filter.hpp"

#include "base/fd.hpp"
#include "prog/gate_fixture.hpp"
#include "prog/world.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <stdexcept>

namespace syngate::bench {

namespace {

using namespace prog;

// One thing to be measured: a program and what it is run on.
struct Case {
    std::string name;
    Hook hook = Hook::tc;
    int program = -1;
    Bytes frame;
    std::function<void()> prepare = {};
    std::string interface = "v0";
    unsigned most = 0; // runs at a time; 0: no limit
    std::function<void()> after = {};
    bool drops = false; // what the program must say, else something else was measured
};

Fd load_empty(Hook hook) {
    return is_xdp(hook) ? load_constant(BPF_PROG_TYPE_XDP, XDP_PASS)
                        : load_constant(BPF_PROG_TYPE_SCHED_CLS, -1);
}

// In whole nanoseconds, as the kernel tells it.
Json measure(const Case& what, unsigned repeat) {
    if (what.prepare)
        what.prepare();
    const auto run = Gate::run_program(what.program, what.hook, what.frame, index_of(what.interface.c_str()),
                                       what.most == 0 ? repeat : std::min(repeat, what.most));
    if (what.after)
        what.after();
    if (!run)
        throw std::runtime_error(run.error().message);
    const std::uint32_t drop = is_xdp(what.hook) ? XDP_DROP : 2; // TC_ACT_SHOT
    if ((run->code == drop) != what.drops)
        throw std::runtime_error(fmt::format("{} returned {}", what.name, run->code));
    return run->ns;
}

Bytes data() {
    return Packet().eth().ipv4().tcp({.flags = ACK, .options = 12}).payload(1400).bytes();
}
Bytes syn(std::uint16_t destination) {
    return Packet().eth().ipv4().tcp({.dport = destination, .options = 20}).bytes();
}

// Port 80 is dropped, port 443 held, as the tier prog has it.
std::unique_ptr<Gate> load_gate() {
    auto gate = Gate::load({.ring_bytes = 1U << 24});
    if (!gate)
        throw std::runtime_error(gate.error().message);
    (*gate)->add_local("10.0.0.1/32");
    (*gate)->set_interface(index_of("v0"), true);
    (*gate)->set_port(80, SYNGATE_POLICY_DROP);
    (*gate)->set_port(443, SYNGATE_POLICY_HOLD);
    return std::move(*gate);
}

void add_gate(std::vector<Case>& cases, Gate& gate, Hook hook, const Fd& empty) {
    const auto open = [&gate] { gate.open(); };
    const auto close = [&gate] { gate.close(); };
    const int program = gate.program(hook);
    cases.push_back({"an empty program", hook, empty.get(), data()});
    cases.push_back({"gate open, data", hook, program, data(), open});
    cases.push_back({"gate open, SYN", hook, program, syn(80), open});
    cases.push_back(
        {"gate closed, UDP", hook, program, Packet().eth().ipv4().udp().payload(512).bytes(), close});
    cases.push_back({"gate closed, data of a connection", hook, program, data(), close});
    cases.push_back({"gate closed, SYN to another port", hook, program, syn(81), close});
    cases.push_back({.name = "gate closed, SYN dropped",
                     .hook = hook,
                     .program = program,
                     .frame = syn(80),
                     .prepare = close,
                     .drops = true});
    // No more than the park memory has room for, and emptied after each run.
    cases.push_back({.name = "gate closed, SYN held",
                     .hook = hook,
                     .program = program,
                     .frame = syn(443),
                     .prepare = close,
                     .most = 100'000,
                     .after = [&gate] { gate.consume(); },
                     .drops = true});
}

} // namespace

void measure_packets(const Settings& settings) {
    Result result(settings, "packet");
    if (const auto entered = enter_world(); !entered)
        throw std::runtime_error(entered.error().message);
    const unsigned repeat = settings.quick ? 100'000 : 1'000'000;
    const int rounds = settings.quick ? 5 : 15;
    result.parameters() = {{"repeat", repeat}, {"rounds", rounds}};

    const auto gate = load_gate();
    const Fd empty_tc = load_empty(Hook::tc);
    const Fd empty_xdp = load_empty(Hook::xdp);
    std::vector<Case> cases;
    add_gate(cases, *gate, Hook::tc, empty_tc);
    add_gate(cases, *gate, Hook::xdp, empty_xdp);

    std::optional<XdpFilter> filter;
    try {
        filter.emplace("v1", "native", 80);
        cases.push_back({.name = "xdp-filter, SYN to the denied port",
                         .hook = Hook::xdp,
                         .program = filter->program(),
                         .frame = syn(80),
                         .interface = "v1",
                         .drops = true});
        cases.push_back(
            {"xdp-filter, data of a connection",
             Hook::xdp,
             filter->program(),
             Packet().eth().ipv4().tcp({.dport = 81, .flags = ACK, .options = 12}).payload(1400).bytes(),
             {},
             "v1"});
    } catch (const std::exception& error) {
        result.impossible("xdp-filter", error.what());
    }

    std::vector<Json> runs(cases.size(), Json::array());
    for (int round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < cases.size(); ++i)
            runs[i].push_back(measure(cases[i], repeat));
    for (std::size_t i = 0; i < cases.size(); ++i) {
        progress(fmt::format("{:<4} {:<40} {} ns", to_string(cases[i].hook), cases[i].name,
                             std::ranges::min(runs[i].get<std::vector<double>>())));
        result.add("programs",
                   {{"name", cases[i].name}, {"hook", to_string(cases[i].hook)}, {"ns", runs[i]}});
    }
    result.write();
}

} // namespace syngate::bench
