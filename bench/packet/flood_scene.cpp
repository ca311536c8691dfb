// SPDX-License-Identifier: GPL-2.0-or-later
#include "packet/flood_scene.hpp"

#include "common/host.hpp"
#include "common/link.hpp"
#include "netns/sandbox.hpp"
#include "packet/generator.hpp"

#include <fmt/format.h>
#include <fstream>
#include <net/if.h>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>

namespace syngate::bench {

namespace {

using namespace live;

// Kernel threads are told apart by the name of their device only, and other sandboxes' are among them.
std::string fresh_name(const char* begin) {
    std::random_device random;
    return fmt::format("{}{:06x}", begin, random() & 0xffffffU);
}

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

} // namespace

FloodScene::FloodScene() : device(fresh_name("fs")), peer(fresh_name("fc")) {
    connect_by_veth({server, device, fmt::format("{}/24", server_v4), ""},
                    {client, peer, fmt::format("{}/24", client_v4), ""});
    index = ::if_nametoindex(device.c_str());
    must_run({"ethtool", "-K", device, "gro", "on"}); // a veth has a NAPI with this, or with XDP
    // Only a sysfs of its own shows a namespace's devices.
    const auto threaded =
        run({"unshare", "--mount", "sh", "-c",
             fmt::format("mount -t sysfs sysfs /sys && echo 1 >/sys/class/net/{}/threaded", device)});
    if (threaded.status.code != 0)
        throw std::runtime_error(
            fmt::format("this kernel's veth has no threaded NAPI (Linux 5.12): {}", threaded.err));
    const Inside inside(client);
    const Generator once(::if_nametoindex(peer.c_str()), frame().ipv4({.src = client_v4}).udp().bytes());
}

prog::Packet FloodScene::frame() const {
    return prog::Packet().eth({.dst = mac_of(server, device), .src = mac_of(client, peer)});
}

std::uint64_t FloodScene::received() const {
    std::ifstream file("/proc/thread-self/net/dev");
    for (std::string line; std::getline(file, line);) {
        const auto name_end = line.find(':');
        std::uint64_t packets = 0;
        if (name_end != line.npos && line.substr(0, name_end).ends_with(device) &&
            std::sscanf(line.c_str() + name_end + 1, "%*u %lu", &packets) == 1)
            return packets;
    }
    return 0;
}

Json FloodScene::flood(const std::vector<std::uint8_t>& frame, Duration length) const {
    std::optional<Generator> flood;
    {
        const Inside inside(client);
        flood.emplace(::if_nametoindex(peer.c_str()), frame);
    }
    std::this_thread::sleep_for(length / 5); // the time of a queue's filling is not measured
    const auto packets = received();
    const auto segments = tcp_segments();
    const auto sent = flood->sent();
    const double cpu = kernel_thread_seconds("napi/" + device);
    const Time begin = Clock::now();
    std::this_thread::sleep_for(length);
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    const double used = kernel_thread_seconds("napi/" + device) - cpu;
    const auto came = static_cast<double>(received() - packets);
    const auto reached = static_cast<double>(tcp_segments() - segments);
    return {{"packets", came},
            {"seconds", took},
            {"sent", static_cast<double>(flood->sent() - sent)},
            {"cpu_seconds", used},
            {"packets_per_cpu_second", used > 0 ? came / used : 0.},
            {"reached_tcp", reached}};
}

} // namespace syngate::bench
