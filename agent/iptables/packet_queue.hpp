// SPDX-License-Identifier: GPL-2.0-or-later
// SYNs that wait in the kernel (NFQUEUE): the queue belongs to the socket, so it is gone, with what is in it,
// as soon as the agent is; a rule with --queue-bypass then lets pass.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

struct nlmsghdr;

namespace syngate {

class PacketQueue {
public:
    enum class Verdict {
        again, // to the first rule of the hook in which it was queued
        drop
    };

    // Takes a queue number that nobody has, from 32768 on, beginning at one made of `seed`. memory: bytes;
    // what it allows for is counted in SYNs. Exit::impossible where the kernel has no such queues or we may
    // not have one.
    static Result<std::unique_ptr<PacketQueue>> open(std::uint64_t seed, std::size_t memory);

    [[nodiscard]] std::uint16_t number() const { return number_; }
    [[nodiscard]] std::size_t room() const { return room_; }            // SYNs
    [[nodiscard]] std::uint64_t waiting() const { return ids_.size(); } // noted, without a verdict
    // Readable when a SYN has come.
    [[nodiscard]] int fd() const { return fd_.get(); }

    // Takes note of those that have come since, without waiting. Returns their number.
    std::uint64_t take_note();
    // For those that have been noted and have no verdict yet, oldest first, `most` of them. Returns their
    // number.
    std::uint64_t judge(Verdict verdict, std::uint64_t most = UINT64_MAX);
    // SYNs that the kernel dropped because the queue was full, since it was opened. 0 where the kernel does
    // not say.
    [[nodiscard]] std::uint64_t overflown() const;

private:
    PacketQueue() = default;
    Result<void> configure();
    Result<bool> try_number(std::uint16_t number); // false: somebody has it
    Result<void> transact(nlmsghdr& message) const;

    Fd fd_;
    std::uint32_t port_id_ = 0;
    std::uint16_t number_ = 0;
    std::size_t room_ = 0;
    std::deque<std::uint32_t> ids_; // of packets without a verdict, ascending
};

} // namespace syngate
