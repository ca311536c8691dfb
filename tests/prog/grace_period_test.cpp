// SPDX-License-Identifier: GPL-2.0-or-later
// Against a packet that is being received: an sk_lookup program, attached in the tests' namespace, that says
// when it begins and, milliseconds later, when it ends.
#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/grace_period.hpp"
#include "prog/world.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <bpf/bpf.h>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <thread>

namespace syngate::prog {
namespace {

constexpr int readings = 50'000; // of the clock, some 20 ns each; all of them are walked by the verifier

struct Progress {
    std::atomic<std::uint32_t> begun, ended;
};

bpf_insn instruction(int code, unsigned to, unsigned from, int offset, int value) {
    return {.code = static_cast<__u8>(code),
            .dst_reg = static_cast<__u8>(to & 0xf),
            .src_reg = static_cast<__u8>(from & 0xf),
            .off = static_cast<__s16>(offset),
            .imm = value};
}

struct GracePeriod : testing::TestWithParam<bool (*)()> {
    void SetUp() override {
        if (::get_nprocs() < 2)
            GTEST_SKIP() << "what one processor does is over when another thread runs on it";
        const auto world = enter_world();
        if (!world && world.error().exit == Exit::impossible)
            GTEST_SKIP() << world.error().message;
        ASSERT_TRUE(world) << world.error().message;
        ASSERT_TRUE(ip_batch("link set lo up\n"));
        bpf_map_create_opts options{};
        options.sz = sizeof options;
        options.map_flags = BPF_F_MMAPABLE;
        map = Fd(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "progress", 4, sizeof(Progress), 1, &options));
        ASSERT_TRUE(map) << std::strerror(errno);
        void* at = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
        ASSERT_NE(at, MAP_FAILED) << std::strerror(errno);
        progress = static_cast<Progress*>(at);
        attach();
    }

    void attach() {
        const bpf_insn instructions[] = {
            instruction(BPF_LD | BPF_DW | BPF_IMM, 6, BPF_PSEUDO_MAP_VALUE, 0, map.get()),
            instruction(0, 0, 0, 0, 0),
            instruction(BPF_ST | BPF_MEM | BPF_W, 6, 0, offsetof(Progress, begun), 1),
            instruction(BPF_ALU64 | BPF_MOV | BPF_K, 7, 0, 0, readings),
            instruction(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_ktime_get_ns),
            instruction(BPF_ALU64 | BPF_SUB | BPF_K, 7, 0, 0, 1),
            instruction(BPF_JMP | BPF_JNE | BPF_K, 7, 0, -3, 0),
            instruction(BPF_ST | BPF_MEM | BPF_W, 6, 0, offsetof(Progress, ended), 1),
            instruction(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, SK_PASS),
            instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};
        bpf_prog_load_opts options{};
        options.sz = sizeof options;
        options.expected_attach_type = BPF_SK_LOOKUP;
        program = Fd(::bpf_prog_load(BPF_PROG_TYPE_SK_LOOKUP, "slow_lookup", "GPL", instructions,
                                     std::size(instructions), &options));
        ASSERT_TRUE(program) << std::strerror(errno);
        const Fd here(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
        link = Fd(::bpf_link_create(program.get(), here.get(), BPF_SK_LOOKUP, nullptr));
        ASSERT_TRUE(link) << std::strerror(errno);
    }

    // Received by the processor that sends it, before this returns.
    static void send_a_packet() {
        const Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(9);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::sendto(fd.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to), 1);
    }

    // Whether it was put to the test: the packet was still being received when the wait began.
    bool outlasts_a_packet() {
        progress->begun = progress->ended = 0;
        std::thread sender(send_a_packet);
        const Time deadline = Clock::now() + std::chrono::seconds(5);
        while (progress->begun == 0 && Clock::now() < deadline)
            ;
        EXPECT_EQ(progress->begun, 1U) << "no packet came by the program";
        const bool under_way = progress->ended == 0;
        const bool waited = GetParam()();
        if (waited) {
            ++waits;
            EXPECT_EQ(progress->ended, 1U) << "the packet is still under way";
        }
        sender.join();
        return waited && under_way;
    }

    void TearDown() override {
        if (progress != nullptr)
            ::munmap(progress, sizeof(Progress));
    }

    int waits = 0;
    Fd map, program, link;
    Progress* progress = nullptr;
};

TEST_P(GracePeriod, OutlastsAPacketUnderWay) {
    if (!GetParam()())
        GTEST_SKIP() << "not to be had on this machine";
    constexpr int wanted = 10;
    int met = 0;
    for (int i = 0; i < 10 * wanted && met < wanted && !HasFailure(); ++i)
        met += outlasts_a_packet() ? 1 : 0;
    if (waits == 0)
        GTEST_SKIP() << "on this machine the packet takes longer than one way may: the other one is taken";
    EXPECT_EQ(met, wanted) << "no packet was met under way";
}

TEST_P(GracePeriod, LeavesTheCallersProcessors) {
    cpu_set_t own, left;
    ASSERT_EQ(::sched_getaffinity(0, sizeof own, &own), 0);
    GetParam()();
    ASSERT_EQ(::sched_getaffinity(0, sizeof left, &left), 0);
    EXPECT_TRUE(CPU_EQUAL(&own, &left));
}

INSTANTIATE_TEST_SUITE_P(Ways, GracePeriod, testing::Values(&run_on_every_cpu, &wait_for_grace_period),
                         [](const auto& tested) {
                             return tested.param == &run_on_every_cpu ? "every_cpu" : "rcu";
                         });

} // namespace
} // namespace syngate::prog
