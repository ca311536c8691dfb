// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/gate_fixture.hpp"

#include "base/clock.hpp"
#include "gate/intercept.hpp"
#include "prog/world.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gate.skel.h>
#include <linux/bpf.h>

namespace syngate::prog {

namespace {

struct Codes {
    std::uint32_t pass, drop;
};

constexpr Codes codes_of(Hook hook) {
    return is_xdp(hook) ? Codes{XDP_PASS, XDP_DROP} : Codes{static_cast<std::uint32_t>(-1), 2};
}

bool passes(syngate_reason reason) {
    enum Verdict { pass, drop, hold };
    static constexpr Verdict verdicts[] = {
#define SYNGATE_REASON_VERDICT(name, verdict, meaning) verdict,
        SYNGATE_REASONS(SYNGATE_REASON_VERDICT)
#undef SYNGATE_REASON_VERDICT
    };
    return verdicts[reason] == pass;
}

template <class Key, class Value> void put(const bpf_map* map, const Key& key, const Value& value) {
    ASSERT_EQ(bpf_map__update_elem(map, &key, sizeof(key), &value, sizeof(value), BPF_ANY), 0)
        << "cannot write map " << bpf_map__name(map) << ": " << std::strerror(errno);
}

syngate_prefix key_of(const std::string& prefix) {
    const std::size_t slash = prefix.find('/');
    const std::string address = prefix.substr(0, slash);
    syngate_prefix key = {.prefix_len = static_cast<std::uint32_t>(std::stoul(prefix.substr(slash + 1)))};
    if (inet_pton(AF_INET6, address.c_str(), key.address) != 1) {
        key.prefix_len += 96;
        key.address[10] = key.address[11] = 0xff;
        EXPECT_EQ(inet_pton(AF_INET, address.c_str(), key.address + 12), 1) << prefix;
    }
    return key;
}

} // namespace

std::string to_string(Hook hook) {
    static constexpr const char* names[] = {"tc", "tc_l3", "xdp", "xdp_by_helper"};
    return names[static_cast<int>(hook)];
}

std::size_t shortest_frame(Hook hook, const Bytes& frame) {
    if (is_xdp(hook))
        return 14;
    const unsigned type = frame.size() < 14 ? 0U : frame[12] * 256U + frame[13];
    return type == 0x0800 ? 34 : type == 0x86dd ? 54 : 15;
}

struct Gate::State {
    gate* skeleton = nullptr;
    ring_buffer* ring = nullptr;
    std::vector<Record> records;

    ~State() {
        ring_buffer__free(ring);
        gate::destroy(skeleton);
    }
};

Gate::Gate(std::unique_ptr<State> state) : state_(std::move(state)) {}
Gate::~Gate() = default;

Result<std::unique_ptr<Gate>> Gate::load(const Options& options) {
    auto state = std::make_unique<State>();
    state->skeleton = gate::open();
    if (!state->skeleton)
        return system_failure("cannot open the gate's object", errno);
    state->skeleton->rodata->can_hold = options.can_hold;
    state->skeleton->rodata->xdp_reads_directly = options.xdp_reads_directly;
    state->skeleton->rodata->intercepting = options.intercepting;
    bpf_map__set_max_entries(state->skeleton->maps.parked, options.ring_bytes);
    if (const int error = gate::load(state->skeleton))
        return system_failure("cannot load the gate, see the verifier's log above", -error,
                              error == -EPERM ? Exit::impossible : Exit::failed);

    const auto keep = [](void* records, void* data, std::size_t size) {
        Record record;
        const auto* bytes = static_cast<const std::uint8_t*>(data);
        if (size < sizeof(record.head))
            return -EINVAL;
        std::memcpy(&record.head, bytes, sizeof(record.head));
        record.frame.assign(bytes + sizeof(record.head), bytes + size);
        static_cast<std::vector<Record>*>(records)->push_back(std::move(record));
        return 0;
    };
    state->ring = ring_buffer__new(bpf_map__fd(state->skeleton->maps.parked), keep, &state->records, nullptr);
    if (!state->ring)
        return system_failure("cannot map the ring buffer", errno);
    return std::unique_ptr<Gate>(new Gate(std::move(state)));
}

void Gate::close(std::chrono::nanoseconds lease, std::chrono::nanoseconds max, bool local_first) {
    const Time now = Clock::now();
    put(state_->skeleton->maps.gate, std::uint32_t{0},
        syngate_gate{.abi_version = SYNGATE_ABI_VERSION,
                     .closed_until_ns = to_ns(now + lease),
                     .max_until_ns = to_ns(now + max),
                     .closed_at_ns = to_ns(now),
                     .generation = generation,
                     .local_first = local_first ? 1U : 0U});
}

void Gate::open() {
    put(state_->skeleton->maps.gate, std::uint32_t{0},
        syngate_gate{.abi_version = SYNGATE_ABI_VERSION, .max_until_ns = ~0ULL, .generation = generation});
}

void Gate::set_port(std::uint16_t port, syngate_policy policy, std::uint32_t of_generation) {
    put(state_->skeleton->maps.ports, port, syngate_port{.generation = of_generation, .policy = policy});
}

void Gate::add_local(const std::string& prefix, syngate_local where) {
    put(state_->skeleton->maps.local_addresses, key_of(prefix), static_cast<std::uint32_t>(where));
}

void Gate::add_intercept(const std::string& rule) {
    const auto parsed = parse_intercept(rule);
    ASSERT_TRUE(parsed) << parsed.error().message;
    put(state_->skeleton->maps.intercepts, syngate::key_of(*parsed),
        syngate_intercept{.listen_port = parsed->listen_port});
}

void Gate::add_listener(const std::string& address, std::uint16_t port, std::uint32_t of_generation) {
    syngate_staged_listener key{.generation = of_generation, .port = port};
    std::ranges::copy(key_of(address + "/0").address, key.address);
    put(state_->skeleton->maps.staged_listeners, key, std::uint32_t{1});
}

void Gate::remove_local(const std::string& prefix) {
    const syngate_prefix key = key_of(prefix);
    ASSERT_EQ(bpf_map__delete_elem(state_->skeleton->maps.local_addresses, &key, sizeof(key), 0), 0)
        << prefix;
}

void Gate::set_interface(std::uint32_t ifindex, bool can_replay) {
    put(state_->skeleton->maps.interfaces, ifindex, syngate_interface{.can_replay = can_replay});
}

int Gate::program(Hook hook) const {
    const auto& programs = state_->skeleton->progs;
    return bpf_program__fd(hook == Hook::tc      ? programs.syngate_tc
                           : hook == Hook::tc_l3 ? programs.syngate_tc_l3
                                                 : programs.syngate_xdp);
}

Result<Gate::Run> Gate::run_program(int program, Hook hook, const Bytes& frame, std::uint32_t ifindex,
                                    unsigned repeat) {
    Run done;
    done.out.resize(frame.size() + 64);
    __sk_buff skb = {};
    skb.ifindex = ifindex;
    xdp_md xdp = {};
    xdp.data_end = static_cast<std::uint32_t>(frame.size());
    xdp.ingress_ifindex = ifindex;

    bpf_test_run_opts run = {};
    run.sz = sizeof(run);
    run.data_in = frame.data();
    run.data_size_in = static_cast<std::uint32_t>(frame.size());
    run.data_out = done.out.data();
    run.data_size_out = static_cast<std::uint32_t>(done.out.size());
    run.ctx_in = is_xdp(hook) ? static_cast<void*>(&xdp) : &skb;
    run.ctx_size_in = is_xdp(hook) ? sizeof(xdp) : sizeof(skb);
    run.repeat = static_cast<int>(repeat);
    if (const int error = bpf_prog_test_run_opts(program, &run); error < 0)
        return system_failure("BPF_PROG_RUN of " + to_string(hook) + " with " + std::to_string(frame.size()) +
                                  " bytes",
                              -error);
    done.code = run.retval;
    done.ns = run.duration;
    done.out.resize(run.data_size_out);
    return done;
}

Counters Gate::counters() const {
    static const int cpus = libbpf_num_possible_cpus();
    std::vector<syngate_verdicts> each(static_cast<std::size_t>(cpus));
    const std::uint32_t zero = 0;
    EXPECT_EQ(bpf_map__lookup_elem(state_->skeleton->maps.verdicts, &zero, sizeof(zero), each.data(),
                                   each.size() * sizeof(each[0]), 0),
              0);
    Counters sum = {};
    for (const syngate_verdicts& cpu : each) {
        Counters one;
        std::memcpy(one.data(), &cpu, sizeof(cpu));
        for (std::size_t i = 0; i < sum.size(); i++)
            sum[i] += one[i];
    }
    return sum;
}

std::vector<Record> Gate::consume() {
    EXPECT_GE(ring_buffer__consume(state_->ring), 0);
    return std::exchange(state_->records, {});
}

void GateTest::SetUp() {
    if (const auto world = enter_world(); !world && world.error().exit == Exit::impossible)
        GTEST_SKIP() << world.error().message;
    else if (!world)
        FAIL() << world.error().message;
    load();
}

void GateTest::load(const Options& options) {
    Options all = options;
    all.xdp_reads_directly = hook() != Hook::xdp_by_helper;
    auto loaded = Gate::load(all);
    if (!loaded && loaded.error().exit == Exit::impossible)
        GTEST_SKIP() << loaded.error().message;
    ASSERT_TRUE(loaded) << loaded.error().message;
    gate_ = std::move(*loaded);
    gate_->set_port(80, SYNGATE_POLICY_DROP);
    gate_->set_port(443, SYNGATE_POLICY_HOLD);
    gate_->add_local("10.0.0.1/32");
    gate_->add_local("2001:db8::1/128");
    gate_->set_interface(index_of("v0"), true);
    gate_->close();
}

syngate_reason GateTest::verdict(const Bytes& frame, std::uint32_t ifindex) {
    const Counters before = gate_->counters();
    const auto run =
        Gate::run_program(gate_->program(hook()), hook(), frame, ifindex ? ifindex : index_of("v0"));
    if (!run) {
        ADD_FAILURE() << run.error().message;
        return SYNGATE_REASON_COUNT;
    }
    const Counters after = gate_->counters();

    std::vector<syngate_reason> moved;
    for (std::size_t i = 0; i < after.size(); i++)
        for (std::uint64_t n = before[i]; n < after[i]; n++)
            moved.push_back(static_cast<syngate_reason>(i));
    EXPECT_EQ(moved.size(), 1U) << "each frame has one reason; got " << ::testing::PrintToString(moved);
    if (moved.size() != 1)
        return SYNGATE_REASON_COUNT;
    EXPECT_EQ(run->code, passes(moved[0]) ? codes_of(hook()).pass : codes_of(hook()).drop)
        << "the return code is not that of " << reason_name(moved[0]);
    EXPECT_TRUE(run->out == frame) << "the program changed the frame";
    return moved[0];
}

} // namespace syngate::prog
