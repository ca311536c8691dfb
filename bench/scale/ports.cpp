// SPDX-License-Identifier: GPL-2.0-or-later
// How long it takes from the decision until SYNs are dropped, for any number of ports.
#include "scale/scale.hpp"

#include "common/link.hpp"
#include "event/loop.hpp"
#include "gate/bpf_gate.hpp"
#include "iptables/iptables_gate.hpp"
#include "netns/sandbox.hpp"
#include "prog/packet.hpp"

#include <fmt/format.h>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

constexpr auto lease = 3s;       // the usual one
constexpr int most_calls = 1000; // iptables, a call a port

PortSet first_ports(int count) {
    PortSet all;
    for (int i = 0; i < count; ++i)
        all.insert(static_cast<std::uint16_t>(65535 - i));
    return all;
}

// One of the ways; what has nothing to prepare has no stage.
struct Times {
    std::vector<double> stage_us; // may be done before the decision
    std::vector<double> close_us;
};

Json to_json(const std::string& way, int ports, const Times& times) {
    return {{"way", way}, {"ports", ports}, {"stage_us", times.stage_us}, {"close_us", times.close_us}};
}

class Measurement {
public:
    Measurement(const Settings& settings, Result& result)
        : result_(result), quick_(settings.quick), rounds_(settings.quick ? 5 : 20),
          loop_(must(Loop::make())) {}

    void all(int ports) {
        by_gate(
            "syngate, bpf", ports,
            [&] {
                return make_bpf_gate(
                    *loop_, {.hook = Hook::tcx, .policy = Policy::drop, .pin_base = "/sys/fs/bpf/syngate"});
            },
            true);
        by_gate(
            "syngate, iptables", ports, [&] { return make_iptables_gate(*loop_, {.policy = Policy::drop}); },
            false);
        by_commands("iptables-restore", ports, restore_file(ports), "iptables-restore", {"--noflush"},
                    {"iptables", "-F", "INPUT"});
        if (ports <= most_calls || !quick_) // more than 30 s with nft 1.0
            by_commands("nft, a set", ports, nft_file(ports), "nft", {"-f"},
                        {"nft", "delete", "table", "ip", "scale"});
        if (ports <= most_calls)
            by_calls(ports);
        else
            result_.impossible(fmt::format("iptables, a call a port, {} ports", ports),
                               fmt::format("would take minutes; {} ports are measured", most_calls));
    }

private:
    template <class Make> void by_gate(const std::string& way, int ports, Make make, bool verify) {
        try {
            const auto gate = must(make());
            const PortSet set = first_ports(ports);
            Times times;
            for (int i = 0; i < rounds_; ++i) {
                times.stage_us.push_back(time_us([&] { must(gate->stage(set, Policy::drop)); }));
                times.close_us.push_back(time_us([&] { must(gate->close(lease)); }));
                if (verify && TcxProgram(ClientHost::server_device).run(syn_) != TcxProgram::drops)
                    throw std::runtime_error("the gate is closed, but a SYN passes");
                gate->open();
            }
            add(way, ports, times);
        } catch (const std::exception& error) {
            result_.impossible(fmt::format("{}, {} ports", way, ports), error.what());
        }
    }

    void by_commands(const std::string& way, int ports, const std::string& file, const std::string& program,
                     const Argv& options, const Argv& undo) {
        Argv argv{program};
        argv.insert(argv.end(), options.begin(), options.end());
        argv.push_back(file);
        try {
            Times times;
            for (int i = 0; i < std::min(rounds_, ports > most_calls ? 3 : rounds_); ++i) {
                times.close_us.push_back(time_us([&] { must_run(argv); }));
                must_run(undo);
            }
            add(way, ports, times);
        } catch (const std::exception& error) {
            result_.impossible(fmt::format("{}, {} ports", way, ports), error.what());
        }
    }

    // As the container that syngate supersedes does it.
    void by_calls(int ports) {
        Times times;
        for (int i = 0; i < (ports > 100 ? 1 : 3); ++i) {
            times.close_us.push_back(time_us([&] {
                for (const auto port : first_ports(ports))
                    must_run({"iptables", "-A", "INPUT", "-p", "tcp", "--dport", std::to_string(port),
                              "--syn", "-j", "DROP"});
            }));
            must_run({"iptables", "-F", "INPUT"});
        }
        add("iptables, a call a port", ports, times);
    }

    static std::string restore_file(int ports) {
        std::string text = "*filter\n";
        for (const auto port : first_ports(ports))
            text += fmt::format("-A INPUT -p tcp --dport {} --syn -j DROP\n", port);
        return write_file("rules", text + "COMMIT\n");
    }
    static std::string nft_file(int ports) {
        std::string list;
        for (const auto port : first_ports(ports))
            list += fmt::format("{}{}", list.empty() ? "" : ", ", port);
        return write_file("rules.nft",
                          fmt::format("table ip scale {{\n"
                                      " set ports {{ type inet_service; elements = {{ {} }}; }}\n"
                                      " chain in {{ type filter hook input priority 0;\n"
                                      "  tcp dport @ports tcp flags & (syn|ack) == syn drop; }}\n"
                                      "}}\n",
                                      list));
    }

    void add(const std::string& way, int ports, const Times& times) {
        progress(fmt::format("{:<26} {:>6} ports in force after {:.1f} us", way, ports,
                             *std::ranges::min_element(times.close_us)));
        result_.add("ports", to_json(way, ports, times));
    }

    Result& result_;
    bool quick_;
    int rounds_;
    ClientHost hosts_;
    std::unique_ptr<Loop> loop_;
    std::vector<std::uint8_t> syn_ = prog::Packet()
                                         .eth({.dst = mac_of(hosts_.server, ClientHost::server_device),
                                               .src = mac_of(hosts_.client, ClientHost::client_device)})
                                         .ipv4({.src = ClientHost::client_v4, .dst = ClientHost::server_v4})
                                         .tcp({.dport = 65535, .options = 20})
                                         .bytes();
};

} // namespace

void measure_ports(const Settings& settings, Result& result) {
    Measurement measurement(settings, result);
    for (const int ports : {1, 15, 100, 1000, 65535})
        if (!settings.quick || ports != 1000) // a second for every call a port
            measurement.all(ports);
}

} // namespace syngate::bench
