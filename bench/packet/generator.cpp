// SPDX-License-Identifier: GPL-2.0-or-later
#include "packet/generator.hpp"

#include <bpf/bpf.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdexcept>

#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1) // linux/bpf.h of 5.18
#endif

namespace syngate::bench {

namespace {

constexpr int frames_a_call = 1 << 14;
constexpr std::uint32_t batch = 64;

// return bpf_redirect(ifindex, 0);
Fd load_redirect(std::uint32_t ifindex) {
    const bpf_insn instructions[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K,
         .dst_reg = 1,
         .src_reg = 0,
         .off = 0,
         .imm = static_cast<int>(ifindex)},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .src_reg = 0, .off = 0, .imm = 0},
        {.code = BPF_JMP | BPF_CALL, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = BPF_FUNC_redirect},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
    Fd program(
        ::bpf_prog_load(BPF_PROG_TYPE_XDP, "flood", "GPL", instructions, std::size(instructions), nullptr));
    if (!program)
        throw std::runtime_error(fmt::format("cannot load the flood's program: {}", std::strerror(errno)));
    return program;
}

int send(int program, std::uint32_t ifindex, const std::vector<std::uint8_t>& frame, int count) {
    xdp_md context{};
    context.data_end = static_cast<std::uint32_t>(frame.size());
    context.ingress_ifindex = ifindex;
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof(context);
    options.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    options.repeat = count;
    options.batch_size = batch;
    return ::bpf_prog_test_run_opts(program, &options);
}

} // namespace

Generator::Generator(std::uint32_t ifindex, std::vector<std::uint8_t> frame)
    : ifindex_(ifindex), frame_(std::move(frame)), program_(load_redirect(ifindex)) {
    if (const int r = send(program_.get(), ifindex_, frame_, 1); r < 0)
        throw std::runtime_error(fmt::format("the kernel does not take live frames: {}", std::strerror(-r)));
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Generator::~Generator() = default; // joins

void Generator::run(const std::stop_token& stop) {
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    ::sched_setaffinity(0, sizeof first, &first); // where it may be: the flooded side has the other ones
    while (!stop.stop_requested()) {
        if (const int r = send(program_.get(), ifindex_, frame_, frames_a_call); r < 0 && r != -EINTR)
            return;
        sent_ += frames_a_call;
    }
}

} // namespace syngate::bench
