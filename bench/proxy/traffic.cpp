// SPDX-License-Identifier: GPL-2.0-or-later
#include "proxy/traffic.hpp"

#include "common/host.hpp"

#include <algorithm>
#include <atomic>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace syngate::bench {

namespace {

using namespace live;

constexpr int clients = 8;

double seconds(Duration d) {
    return std::chrono::duration<double>(d).count();
}

double per(double what, double count) {
    return count > 0 ? what / count : 0.0;
}

} // namespace

Traffic& Traffic::operator+=(const Traffic& other) {
    served += other.served;
    failed += other.failed;
    short_seconds += other.short_seconds;
    short_cpu_seconds += other.short_cpu_seconds;
    bytes += other.bytes;
    bulk_seconds += other.bulk_seconds;
    bulk_cpu_seconds += other.bulk_cpu_seconds;
    return *this;
}

Json Traffic::json() const {
    const auto count = static_cast<double>(served);
    return {{"connections_per_second", per(count, short_seconds)},
            {"failed", failed},
            {"cpu_us_per_connection", per(short_cpu_seconds * 1e6, count)},
            {"gbit_per_second", per(bytes * 8 / 1e9, bulk_seconds)},
            {"cpu_s_per_gigabyte", per(bulk_cpu_seconds, bytes / 1e9)}};
}

Traffic short_connections(const Namespace& client, const robust::Target& to, const std::string& expected,
                          Duration length) {
    std::atomic<std::uint64_t> served = 0, failed = 0;
    const double busy = busy_seconds();
    const Time begin = Clock::now();
    const Time end = begin + length;
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < clients; ++i)
            threads.emplace_back([&] {
                while (Clock::now() < end)
                    ++(http_get(client, to) == expected ? served : failed);
            });
    }
    return {.served = served,
            .failed = failed,
            .short_seconds = seconds(Clock::now() - begin),
            .short_cpu_seconds = busy_seconds() - busy};
}

Traffic bulk(const Namespace& client, const robust::Target& to, const robust::Listener& listener,
             Duration length) {
    const Fd connection = robust::connect_from(client, to);
    const Fd accepted = listener.accept();
    const double busy = busy_seconds();
    const Time begin = Clock::now();
    const Time end = begin + length;
    const std::jthread sender([&] {
        const std::vector<char> zeros(1 << 18);
        while (Clock::now() < end && ::send(accepted.get(), zeros.data(), zeros.size(), MSG_NOSIGNAL) > 0) {
        }
        ::shutdown(accepted.get(), SHUT_WR);
    });
    std::vector<char> buffer(1 << 18);
    double bytes = 0;
    pollfd ready{connection.get(), POLLIN, 0};
    while (::poll(&ready, 1, 5000) == 1) {
        const ssize_t size = ::read(connection.get(), buffer.data(), buffer.size());
        if (size <= 0)
            break;
        bytes += static_cast<double>(size);
    }
    return {.bytes = bytes,
            .bulk_seconds = seconds(Clock::now() - begin),
            .bulk_cpu_seconds = busy_seconds() - busy};
}

std::vector<Json> carry_by_turns(const std::vector<Way>& ways, const Turns& turns) {
    std::vector<Traffic> sums(ways.size());
    for (int turn = 0; turn < turns.count; ++turn)
        for (std::size_t i = 0; i < ways.size(); ++i) {
            const std::size_t next = turn % 2 == 0 ? i : ways.size() - 1 - i;
            sums[next] += ways[next].carry(turns.slice);
        }
    std::vector<Json> runs;
    for (std::size_t i = 0; i < ways.size(); ++i) {
        runs.push_back(sums[i].json());
        progress(fmt::format("{:<9} {}", ways[i].name, runs.back().dump()));
    }
    return runs;
}

} // namespace syngate::bench
