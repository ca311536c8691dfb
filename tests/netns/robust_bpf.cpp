// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/robust_bpf.hpp"

#include "netns/internal.hpp"

#include <array>
#include <bpf/bpf.h>
#include <cstddef>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>

namespace syngate::live::robust {

namespace {

constexpr int tcx_ingress = 46; // BPF_TCX_INGRESS, of 6.6
constexpr int next = -1;        // TCX_NEXT, TC_ACT_UNSPEC

constexpr bpf_insn insn(int code, int to, int from, int offset, int value) {
    return {static_cast<__u8>(code), static_cast<__u8>(to & 0xf), static_cast<__u8>(from & 0xf),
            static_cast<__s16>(offset), value};
}

Fd load(CountingProgram::Kind kind, int map) {
    const bool xdp = kind == CountingProgram::Kind::xdp;
    const std::array program{
        insn(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0), // key 0
        insn(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
        insn(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
        insn(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map),
        insn(0, 0, 0, 0, 0), // the upper half
        insn(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
        insn(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0),
        insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1),
        insn(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0, BPF_ADD),
        insn(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, xdp ? static_cast<int>(XDP_PASS) : next),
        insn(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    };
    Fd fd(bpf_prog_load(xdp ? BPF_PROG_TYPE_XDP : BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", program.data(),
                        program.size(), nullptr));
    if (!fd)
        fail("cannot load a counting program");
    return fd;
}

} // namespace

CountingProgram::CountingProgram(Kind kind)
    : map_(bpf_map_create(BPF_MAP_TYPE_ARRAY, "foreign", 4, 8, 1, nullptr)) {
    if (!map_)
        fail("cannot make a counting program's map");
    program_ = load(kind, map_.get());
}

std::uint64_t CountingProgram::packets() const {
    const std::uint32_t zero = 0;
    std::uint64_t count = 0;
    if (bpf_map_lookup_elem(map_.get(), &zero, &count) != 0)
        fail("cannot read a counting program's map");
    return count;
}

std::uint32_t CountingProgram::id() const {
    bpf_prog_info info{};
    std::uint32_t size = sizeof info;
    if (bpf_obj_get_info_by_fd(program_.get(), &info, &size) != 0)
        fail("cannot tell a counting program's id");
    return info.id;
}

void CountingProgram::link(const std::string& device, int type, unsigned flags) {
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = flags;
    link_ = Fd(bpf_link_create(program_.get(), static_cast<int>(::if_nametoindex(device.c_str())),
                               static_cast<bpf_attach_type>(type), &options));
    if (!link_)
        fail("cannot attach a counting program to " + device);
}

void CountingProgram::link_tcx(const std::string& device) {
    link(device, tcx_ingress, 0);
}

void CountingProgram::link_xdp(const std::string& device) {
    link(device, BPF_XDP, XDP_FLAGS_SKB_MODE);
}

void CountingProgram::pin(const std::string& path) const {
    if (bpf_obj_pin(program_.get(), path.c_str()) != 0)
        fail("cannot pin a counting program at " + path);
}

// The kernel's struct bpf_link_info of 6.6 shows a TCX link's interface where XDP's is; 0: detached.
bool CountingProgram::is_linked() const {
    bpf_link_info info{};
    std::uint32_t size = sizeof info;
    return link_ && bpf_obj_get_info_by_fd(link_.get(), &info, &size) == 0 && info.xdp.ifindex != 0;
}

} // namespace syngate::live::robust
