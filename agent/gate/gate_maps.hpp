// SPDX-License-Identifier: GPL-2.0-or-later
// The gate's BPF object in this process: its programs, its maps, and the shared word that opens and
// closes it. What is in which map: include/syngate/abi.h.
#pragma once

#include "base/clock.hpp"
#include "base/ports.hpp"
#include "base/result.hpp"
#include "gate/gate.hpp"
#include "gate/intercept.hpp"
#include "net/address_watch.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <syngate/abi.h>

struct gate;

namespace syngate {

class GateMaps {
public:
    struct Plan {
        std::uint64_t owner_id = 0;
        std::size_t park_memory = 0; // bytes, rounded up to a power of two of pages
        bool can_hold = false;       // false: the ring buffer stays a page and the programs do without it
        bool for_xdp = false;        // false: xdp_program() is not loaded
        std::vector<Intercept> intercepts = {};
    };
    // Exit::impossible names the missing capabilities.
    static Result<std::unique_ptr<GateMaps>> load(const Plan& plan);
    ~GateMaps();

    [[nodiscard]] int tc_program() const;
    // For devices without an Ethernet header, loaded when one is met first: the verifier takes its time, and
    // the server's start waits for it.
    Result<int> tc_program_l3();
    [[nodiscard]] int xdp_program() const;

    // For programs that share the maps.
    [[nodiscard]] int gate_fd() const;
    [[nodiscard]] int interfaces_fd() const;
    [[nodiscard]] int local_addresses_fd() const;
    [[nodiscard]] int intercepts_fd() const;

    // Writes these ports' entries with the next generation and returns it. intercepting: who gets what rules
    // intercept.
    Result<std::uint32_t> stage(const PortSet& ports, Policy policy,
                                const std::set<ListenAddress>& intercepting = {});
    // The one atomic step. until and longest: CLOCK_MONOTONIC.
    void close(std::uint32_t generation, Time now, Time until, Time longest);
    void set_lease(Time until);
    void open();
    [[nodiscard]] const syngate_gate& word() const { return *word_; }

    // Makes the local addresses these; see struct Addresses. What cannot be written is tried again by the
    // next call; the error is the first one.
    Result<void> set_local(const std::set<LocalPrefix>& here, const std::set<LocalPrefix>& in_vrf,
                           bool local_first);
    Result<void> set_interface(std::uint32_t ifindex, const syngate_interface& interface);
    // The entry that was there; another agent may have changed made_qdisc in it.
    std::optional<syngate_interface> remove_interface(std::uint32_t ifindex);

    [[nodiscard]] syngate_verdicts verdicts() const; // summed over the CPUs
    [[nodiscard]] std::size_t park_memory() const { return park_memory_; }

    // The park memory is twice its size in this process' memory while it is mapped; parking does without.
    Result<void> map_parked();
    void unmap_parked();
    [[nodiscard]] bool parked_is_mapped() const;
    // Consumes parked records, oldest first, until none is left. Maps them first if they are not.
    Result<void>
    consume(const std::function<void(const syngate_parked&, std::span<const std::uint8_t> frame)>& take);
    [[nodiscard]] int ring_fd() const; // readable while a record waits; -1: nothing can be held

    // Pins every map that people look at under this directory.
    Result<void> pin(const std::string& directory);

private:
    GateMaps();
    Result<void> set_intercepts(const std::vector<Intercept>& intercepts);
    Result<void> stage_listeners(const std::set<ListenAddress>& listeners, std::uint32_t generation);
    struct Ring;
    ::gate* skeleton_ = nullptr;
    ::gate* l3_ = nullptr;         // with the same maps; null until it is needed
    syngate_gate* word_ = nullptr; // mapped from the map `gate`
    std::unique_ptr<Ring> ring_;
    bool can_hold_ = false;
    std::size_t park_memory_ = 0;
    PortSet staged_;
    std::set<ListenAddress> staged_listeners_;   // of generation_
    std::map<LocalPrefix, std::uint32_t> local_; // what the map has
    std::uint32_t generation_ = 0;
};

} // namespace syngate
