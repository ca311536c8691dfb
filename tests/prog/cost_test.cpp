// SPDX-License-Identifier: GPL-2.0-or-later
// What a packet costs, by BPF_PROG_RUN. Prints, asserts nothing: run with
//   syngate-test-prog --gtest_also_run_disabled_tests --gtest_filter='*Cost*'
#include "base/fd.hpp"
#include "prog/gate_fixture.hpp"
#include "prog/world.hpp"

#include <bpf/bpf.h>
#include <cstdio>

namespace syngate::prog {

namespace {

constexpr unsigned repeat = 1'000'000;

Fd load_empty(Hook hook, std::int32_t code) {
    const bpf_insn instructions[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = code},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
    return Fd(bpf_prog_load(is_xdp(hook) ? BPF_PROG_TYPE_XDP : BPF_PROG_TYPE_SCHED_CLS, "empty", "GPL",
                            instructions, std::size(instructions), nullptr));
}

} // namespace

class Cost : public GateTest {
protected:
    // The best of five: the machine has other things to do.
    static void report(const char* what, int program, const Bytes& frame) {
        std::uint32_t best = ~0U;
        for (int i = 0; i < 5; i++) {
            const auto run = Gate::run_program(program, hook(), frame, index_of("v0"), repeat);
            ASSERT_TRUE(run) << run.error().message;
            best = std::min(best, run->ns);
        }
        std::printf("%-6s %-36s %4u ns\n", to_string(hook()).c_str(), what, best);
    }
};
SYNGATE_EVERY_HOOK(Cost);

TEST_P(Cost, DISABLED_PerPacket) {
    const Bytes data = link().ipv4().tcp({.flags = ACK, .options = 12}).payload(1400).bytes();
    const Bytes syn = link().ipv4().tcp({.options = 20}).bytes();
    const Bytes syn6 = link().ipv6().tcp({.options = 20}).bytes();
    const int program = gate().program(hook());

    const Fd empty = load_empty(hook(), is_xdp(hook()) ? 2 : -1);
    ASSERT_TRUE(empty) << std::strerror(errno);
    report("an empty program", empty.get(), data);
    gate().open();
    report("gate open, data", program, data);
    gate().close();
    report("gate closed, established data", program, data);
    report("gate closed, SYN to another port", program, link().ipv4().tcp({.dport = 81}).bytes());
    report("gate closed, SYN dropped, IPv4", program, syn);
    report("gate closed, SYN dropped, IPv6", program, syn6);
    ASSERT_TRUE(set_forwarding("v0", true));
    report("the same, forwarding on, IPv4", program, syn);
    report("the same, forwarding on, IPv6", program, syn6);
    ASSERT_TRUE(set_forwarding("v0", false));
}

} // namespace syngate::prog
