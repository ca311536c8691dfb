// SPDX-License-Identifier: GPL-2.0-or-later
#include "route/obstacles.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <optional>

namespace syngate {
namespace {

class Finder {
public:
    explicit Finder(const ObstacleSources& sources) : sources_(sources) {}

    // 0 where there is no such setting.
    [[nodiscard]] int sysctl(const std::string& path) const {
        std::ifstream file(sources_.sysctls + "/" + path);
        int value = 0;
        return file >> value ? value : 0;
    }

    // As the kernel combines a device's setting with that for all (IN_DEV_ORCONF, IN_DEV_MAXCONF): the
    // greater.
    [[nodiscard]] int of_device(const std::string& device, const char* setting) const {
        return std::max(sysctl(fmt::format("ipv4/conf/all/{}", setting)),
                        sysctl(fmt::format("ipv4/conf/{}/{}", device, setting)));
    }

    // The device kind that its driver tells, as "bridge" or "vlan"; empty for most.
    [[nodiscard]] std::string kind(const std::string& device) const {
        std::ifstream file(sources_.devices + "/" + device + "/uevent");
        constexpr std::string_view key = "DEVTYPE=";
        for (std::string line; std::getline(file, line);)
            if (line.starts_with(key))
                return line.substr(key.size());
        return {};
    }

private:
    const ObstacleSources& sources_;
};

std::optional<Obstacle> src_valid_mark(const Finder& finder, const std::string& device) {
    if (finder.of_device(device, "src_valid_mark") == 0 || finder.of_device(device, "accept_local") != 0)
        return {};
    return Obstacle{
        fmt::format("net.ipv4.conf.{}.src_valid_mark", device),
        fmt::format(
            "src_valid_mark is on for {0}: the kernel judges a marked packet's source by the mark too, "
            "finds it local, and drops the packet as a martian; set net.ipv4.conf.all.src_valid_mark "
            "and net.ipv4.conf.{0}.src_valid_mark to 0 (wg-quick sets it for all)",
            device)};
}

std::optional<Obstacle> rp_filter(const Finder& finder, const std::string& device) {
    if (finder.of_device(device, "rp_filter") != 1)
        return {};
    return Obstacle{
        fmt::format("net.ipv4.conf.{}.rp_filter", device),
        fmt::format("rp_filter is strict on {0}: packets are dropped if the way back to their source leads "
                    "through another interface; where backends or clients are reached by several, set "
                    "net.ipv4.conf.{0}.rp_filter to 2",
                    device)};
}

std::optional<Obstacle> netkit(const Finder& finder, const std::string& device) {
    if (finder.kind(device) != "netkit")
        return {};
    return Obstacle{
        device,
        fmt::format("{} is a netkit device: programs on the device itself run first, and what they redirect "
                    "does not come by here; if transparent connections hang, use a veth",
                    device)};
}

} // namespace

std::vector<Obstacle> find_obstacles(const std::vector<std::string>& interfaces,
                                     const ObstacleSources& sources) {
    const Finder finder(sources);
    std::vector<Obstacle> found;
    for (const std::string& device : interfaces)
        for (const auto& look : {src_valid_mark, rp_filter, netkit})
            if (auto obstacle = look(finder, device))
                found.push_back(std::move(*obstacle));
    if (finder.sysctl("ipv4/tcp_fwmark_accept") != 0)
        found.push_back(
            {"net.ipv4.tcp_fwmark_accept",
             "tcp_fwmark_accept is on: an intercepted connection's socket takes over the mark, and "
             "its answers are routed back to this host; set net.ipv4.tcp_fwmark_accept to 0"});
    for (const char* family : {"iptables", "ip6tables"})
        if (const std::string name = fmt::format("bridge-nf-call-{}", family);
            finder.sysctl("bridge/" + name) != 0)
            found.push_back(
                {"net.bridge." + name,
                 fmt::format(
                     "br_netfilter is on: frames on bridges pass {0} before they arrive here, and a "
                     "rule that translates addresses there hides connections; set net.bridge.{1} to 0 "
                     "if nobody needs it",
                     family, name)});
    return found;
}

} // namespace syngate
