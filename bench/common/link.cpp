// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/link.hpp"

#include "netns/process.hpp"
#include "prog/gate_fixture.hpp"

#include <bpf/bpf.h>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <net/if.h>
#include <sstream>
#include <stdexcept>

namespace syngate::bench {

namespace {

constexpr auto tcx_ingress = static_cast<bpf_attach_type>(46); // linux/bpf.h of Debian 12 does not know it

} // namespace

std::uint64_t mac_of(const live::Namespace& where, const std::string& device) {
    std::istringstream words(live::must_run({"ip", "-br", "link", "show", device}, {.where = &where}));
    for (std::string word; words >> word;) {
        unsigned b[6];
        if (std::sscanf(word.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) !=
            6)
            continue;
        std::uint64_t all = 0;
        for (const unsigned byte : b)
            all = all << 8 | byte;
        return all;
    }
    throw std::runtime_error(device + " has no link-layer address");
}

TcxProgram::TcxProgram(const std::string& device) : index_(::if_nametoindex(device.c_str())) {
    std::uint32_t ids[16]{};
    std::uint32_t count = std::size(ids);
    if (const int r = ::bpf_prog_query(static_cast<int>(index_), tcx_ingress, 0, nullptr, ids, &count); r < 0)
        throw std::runtime_error(
            fmt::format("cannot ask for TCX programs on {}: {}", device, std::strerror(-r)));
    if (count > 0)
        program_ = Fd(::bpf_prog_get_fd_by_id(ids[0]));
    if (!program_)
        throw std::runtime_error(fmt::format("there is no TCX program on {}", device));
}

std::uint32_t TcxProgram::run(const std::vector<std::uint8_t>& frame) const {
    const auto done = prog::Gate::run_program(program_.get(), prog::Hook::tc, frame, index_);
    if (!done)
        throw std::runtime_error(done.error().message);
    return done->code;
}

} // namespace syngate::bench
