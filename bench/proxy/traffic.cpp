// SPDX-License-Identifier: GPL-2.0-or-later
#include "proxy/traffic.hpp"

#include "common/host.hpp"

#include <algorithm>
#include <atomic>
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

} // namespace

Json short_connections(const Namespace& client, const robust::Target& to, const std::string& expected,
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
    const double took = seconds(Clock::now() - begin);
    const auto count = static_cast<double>(served.load());
    return {{"connections_per_second", count / took},
            {"failed", failed.load()},
            {"cpu_us_per_connection", count > 0 ? (busy_seconds() - busy) / count * 1e6 : 0.0}};
}

Json bulk(const Namespace& client, const robust::Target& to, const robust::Listener& listener,
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
    const double took = seconds(Clock::now() - begin);
    return {{"gbit_per_second", bytes * 8 / took / 1e9},
            {"cpu_s_per_gigabyte", bytes > 0 ? (busy_seconds() - busy) / (bytes / 1e9) : 0.0}};
}

} // namespace syngate::bench
