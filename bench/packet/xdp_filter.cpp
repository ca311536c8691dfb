// SPDX-License-Identifier: GPL-2.0-or-later
#include "packet/xdp_filter.hpp"

#include "netns/process.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cstring>
#include <fmt/format.h>
#include <net/if.h>
#include <stdexcept>

namespace syngate::bench {

using namespace live;

XdpFilter::XdpFilter(const std::string& device, const std::string& mode, std::uint16_t port)
    : device_(device) {
    must_run({"xdp-filter", "load", "--mode", mode, "--policy", "allow", "--features", "tcp", device});
    try {
        must_run({"xdp-filter", "port", std::to_string(port), "--mode", "dst", "--proto", "tcp"});
        std::uint32_t id = 0;
        const auto index = static_cast<int>(::if_nametoindex(device.c_str()));
        if (::bpf_xdp_query_id(index, 0, &id) == 0 && id != 0)
            program_ = Fd(::bpf_prog_get_fd_by_id(id));
        if (!program_)
            throw std::runtime_error(
                fmt::format("no program of xdp-filter is on {}: {}", device, std::strerror(errno)));
    } catch (...) {
        run({"xdp-filter", "unload", device_});
        throw;
    }
}

XdpFilter::~XdpFilter() {
    try {
        run({"xdp-filter", "unload", device_});
    } catch (const std::exception&) { // it goes with the device
    }
}

} // namespace syngate::bench
