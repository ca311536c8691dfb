// SPDX-License-Identifier: GPL-2.0-or-later
#include "packet/constant_program.hpp"

#include <bpf/bpf.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <stdexcept>

namespace syngate::bench {

Fd load_constant(bpf_prog_type type, int verdict) {
    const bpf_insn instructions[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = verdict},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
    Fd program(::bpf_prog_load(type, "constant", "GPL", instructions, std::size(instructions), nullptr));
    if (!program)
        throw std::runtime_error(
            fmt::format("cannot load a program that returns {}: {}", verdict, std::strerror(errno)));
    return program;
}

} // namespace syngate::bench
