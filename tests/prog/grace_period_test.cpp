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
        cpu_set_t cpus;
        ASSERT_EQ(::sched_getaffinity(0, sizeof cpus, &cpus), 0);
        if (CPU_COUNT(&cpus) < 2)
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
            EXPECT_EQ(progress->ended, 1U) << "the packet is still under way";
        }
        sender.join();
        return waited && under_way;
    }

    void TearDown() override {
        if (progress != nullptr)
            ::munmap(progress, sizeof(Progress));
    }

    Fd map, program, link;
    Progress* progress = nullptr;
};

TEST_P(GracePeriod, OutlastsAPacketUnderWay) {
    constexpr int wanted = 10;
    int met = 0;
    for (int i = 0; i < 10 * wanted && met < wanted && !HasFailure(); ++i)
        met += outlasts_a_packet() ? 1 : 0;
    if (met == 0)
        GTEST_SKIP() << "not to be had on this machine, or not in the time of a packet";
}

TEST_P(GracePeriod, LeavesTheCallersProcessors) {
    cpu_set_t own, left;
    ASSERT_EQ(::sched_getaffinity(0, sizeof own, &own), 0);
    GetParam()();
    ASSERT_EQ(::sched_getaffinity(0, sizeof left, &left), 0);
    EXPECT_TRUE(CPU_EQUAL(&own, &left));
}

// It would wait for that processor as long as the task polls there.
TEST(RunOnEveryCpu, GivesUpWhereARealTimeTaskKeepsAProcessor) {
    cpu_set_t all, first, last;
    ASSERT_EQ(::sched_getaffinity(0, sizeof all, &all), 0);
    if (CPU_COUNT(&all) < 2 || !run_on_every_cpu())
        GTEST_SKIP() << "not to be had on this machine";
    CPU_ZERO(&first);
    CPU_ZERO(&last);
    for (int cpu = 0, met = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &all) && (++met == 1 || met == CPU_COUNT(&all)))
            CPU_SET(cpu, met == 1 ? &first : &last);
    // This thread is not to be the one that waits.
    ASSERT_EQ(::sched_setaffinity(0, sizeof first, &first), 0);
    std::atomic<int> keeps = 0; // -1: it may not
    std::atomic<bool> enough = false;
    std::thread poller([&] {
        const sched_param priority{.sched_priority = 1};
        const bool may = ::sched_setaffinity(0, sizeof last, &last) == 0 &&
                         ::sched_setscheduler(0, SCHED_FIFO, &priority) == 0;
        keeps = may ? 1 : -1;
        for (const Time end = Clock::now() + std::chrono::milliseconds(500);
             may && !enough && Clock::now() < end;)
            ;
    });
    while (keeps == 0)
        std::this_thread::yield();
    EXPECT_EQ(::sched_setaffinity(0, sizeof all, &all), 0);
    const Time begun = Clock::now();
    const bool had = run_on_every_cpu();
    const Duration took = Clock::now() - begun;
    enough = true;
    poller.join();
    if (keeps < 0)
        GTEST_SKIP() << "no real-time priority here";
    EXPECT_FALSE(had);
    EXPECT_LT(took, std::chrono::milliseconds(250));
}

INSTANTIATE_TEST_SUITE_P(Ways, GracePeriod, testing::Values(&run_on_every_cpu, &wait_for_grace_period),
                         [](const auto& tested) {
                             return tested.param == &run_on_every_cpu ? "every_cpu" : "rcu";
                         });

} // namespace
} // namespace syngate::prog
