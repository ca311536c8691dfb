// SPDX-License-Identifier: GPL-2.0-or-later
// One loaded gate, and packets through it by BPF_PROG_RUN. Nothing is attached.
#pragma once

#include "base/result.hpp"
#include "prog/packet.hpp"

#include <syngate/abi.h>

#include <array>
#include <chrono>
#include <gtest/gtest.h>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

inline const char* reason_name(unsigned reason) {
    static constexpr const char* names[] = {
#define SYNGATE_REASON_NAME(name, verdict, meaning) #name,
        SYNGATE_REASONS(SYNGATE_REASON_NAME)
#undef SYNGATE_REASON_NAME
    };
    return reason < SYNGATE_REASON_COUNT ? names[reason] : "none";
}
inline void PrintTo(syngate_reason reason, std::ostream* out) {
    *out << reason_name(reason);
}

namespace syngate::prog {

// tc_l3: BPF_PROG_RUN always takes bytes 0 to 13 for an Ethernet header (eth_type_trans), but gives
// them to a sched_cls program nevertheless. So a datagram without a link layer is run as it is, if
//   - bytes 12 and 13 are the EtherType: a source in 8.0.0.0/16, or 2001:db8:86dd::/48, and
//   - byte 0 is odd, a group address, for else the frame were for another host: an odd ihl, or a
//     traffic class of 0x10.
// What this cannot express (an even ihl, a shorter frame) is tested live, see live_test.cpp.
// xdp_by_helper: the same program as an agent without CAP_PERFMON loads it, which copies headers by a helper.
enum class Hook { tc, tc_l3, xdp, xdp_by_helper };
constexpr bool is_xdp(Hook hook) {
    return hook == Hook::xdp || hook == Hook::xdp_by_helper;
}
std::string to_string(Hook hook);

// BPF_PROG_RUN refuses shorter frames: below an Ethernet header for XDP; for sched_cls where nothing
// is behind it, or less than an IP header where bytes 12 and 13 promise one (kernel 6.18).
std::size_t shortest_frame(Hook hook, const Bytes& frame);

struct Options {
    std::uint32_t ring_bytes = 1 << 16;
    bool can_hold = true;
    bool xdp_reads_directly = true;
    bool intercepting = false;
};

using Counters = std::array<std::uint64_t, SYNGATE_REASON_COUNT>;

struct Record {
    syngate_parked head;
    Bytes frame;
};

class Gate {
public:
    static constexpr std::uint32_t generation = 7;
    static constexpr std::chrono::hours ever{1};

    // Loads with no maps filled. Exit::impossible: no privilege.
    static Result<std::unique_ptr<Gate>> load(const Options& options = {});
    ~Gate();
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;

    // Both counted from now; negative is in the past.
    void close(std::chrono::nanoseconds lease = ever, std::chrono::nanoseconds max = ever,
               bool local_first = true);
    void open();
    void set_port(std::uint16_t port, syngate_policy policy, std::uint32_t of_generation = generation);
    // "10.0.0.0/8" or "2001:db8::1/128".
    void add_local(const std::string& prefix, syngate_local where = SYNGATE_LOCAL_HERE);
    void remove_local(const std::string& prefix);
    void set_interface(std::uint32_t ifindex, bool can_replay);
    // "80=8080" and the like.
    void add_intercept(const std::string& rule);
    // "0.0.0.0", "::" or one address.
    void add_listener(const std::string& address, std::uint16_t port,
                      std::uint32_t of_generation = generation);

    struct Run {
        std::uint32_t code = 0; // what the program returned
        Bytes out;
        std::uint32_t ns = 0; // each, on average
    };
    // Any program of the hook's type, by its fd.
    static Result<Run> run_program(int program, Hook hook, const Bytes& frame, std::uint32_t ifindex,
                                   unsigned repeat = 1);
    [[nodiscard]] Counters counters() const; // summed over CPUs
    std::vector<Record> consume();
    [[nodiscard]] int program(Hook hook) const; // its fd, the gate's own

private:
    struct State; // the skeleton, out of sight: its header is generated
    explicit Gate(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// A closed gate in its namespace: port 80 is dropped, port 443 held; 10.0.0.1 and 2001:db8::1 are
// local; v0 can replay.
class GateTest : public ::testing::TestWithParam<Hook> {
protected:
    void SetUp() override;

    // Loads anew.
    void load(const Options& options = {});
    // Runs one frame on v0; asserts that exactly one counter moved, by one, that the return code is
    // that reason's, and that the frame came out as it went in.
    syngate_reason verdict(const Bytes& frame, std::uint32_t ifindex = 0);
    syngate_reason verdict(const Packet& packet) { return verdict(packet.bytes()); }

    [[nodiscard]] static Hook hook() { return GetParam(); }
    [[nodiscard]] static bool ethernet() { return hook() != Hook::tc_l3; }
    // An empty packet, with the link layer that the hook sees.
    [[nodiscard]] static Packet link() { return ethernet() ? Packet().eth() : Packet(); }
    [[nodiscard]] static std::size_t link_length() { return ethernet() ? 14 : 0; }
    [[nodiscard]] Gate& gate() { return *gate_; }

private:
    std::unique_ptr<Gate> gate_;
};

#define SYNGATE_EVERY_HOOK(suite)                                                                            \
    INSTANTIATE_TEST_SUITE_P(Hooks, suite,                                                                   \
                             ::testing::Values(::syngate::prog::Hook::tc, ::syngate::prog::Hook::tc_l3,      \
                                               ::syngate::prog::Hook::xdp,                                   \
                                               ::syngate::prog::Hook::xdp_by_helper),                        \
                             [](const auto& test) { return ::syngate::prog::to_string(test.param); })
#define SYNGATE_ETHERNET_HOOKS(suite)                                                                        \
    INSTANTIATE_TEST_SUITE_P(Hooks, suite,                                                                   \
                             ::testing::Values(::syngate::prog::Hook::tc, ::syngate::prog::Hook::xdp,        \
                                               ::syngate::prog::Hook::xdp_by_helper),                        \
                             [](const auto& test) { return ::syngate::prog::to_string(test.param); })

} // namespace syngate::prog
