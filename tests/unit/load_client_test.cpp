// SPDX-License-Identifier: GPL-2.0-or-later
// The load client against small servers on loopback that misbehave in one way each.
#include "base/fd.hpp"
#include "load/client.hpp"

#include <arpa/inet.h>
#include <atomic>
#include <functional>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <thread>
#include <utility>

namespace syngate::load {

namespace {

using namespace std::chrono_literals;

constexpr std::string_view whole_answer = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

Fd listen_on_loopback(int backlog) {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
    if (backlog > 0) {
        EXPECT_EQ(::listen(fd.get(), backlog), 0);
    }
    return fd;
}

Endpoint endpoint_of(int fd) {
    Endpoint endpoint;
    endpoint.length = sizeof endpoint.address;
    EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&endpoint.address), &endpoint.length), 0);
    return endpoint;
}

void read_request(int fd) {
    std::string request;
    char buffer[256];
    while (!request.ends_with("\r\n\r\n")) {
        const auto got = ::recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0)
            return;
        request.append(buffer, static_cast<std::size_t>(got));
    }
}

// A client that gave up has reset the connection: its own report says so.
void write_all(int fd, std::string_view bytes) {
    [[maybe_unused]] const auto sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

void reset(int fd) {
    const linger at_once{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

// Accepts one connection after the other and hands each, its request read, to `serve`, which may answer.
class Server {
public:
    explicit Server(std::function<void(int)> serve)
        : listener_(listen_on_loopback(4096)), to(endpoint_of(listener_.get())), serve_(std::move(serve)),
          thread_([this](const std::stop_token& stop) { accept_all(stop); }) {}
    ~Server() {
        thread_.request_stop();
        ::shutdown(listener_.get(), SHUT_RDWR); // wakes accept
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

private:
    void accept_all(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            const Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!connection)
                continue;
            read_request(connection.get());
            serve_(connection.get());
        }
    }

    Fd listener_;

public:
    const Endpoint to;

private:
    std::function<void(int)> serve_;
    std::jthread thread_;
};

Options brief(const Endpoint& to) {
    Options options;
    options.to = {to};
    options.rate = 200;
    options.duration = 100ms;
    options.timeout = 5s;
    return options;
}

// All 20 connections end alike.
void expect_all(const Options& options, Outcome wanted) {
    const auto report = run(options);
    ASSERT_TRUE(report) << report.error().message;
    EXPECT_EQ(report->started, 20U);
    EXPECT_EQ(report->outcomes[wanted], 20U) << to_text(*report);
    EXPECT_EQ(report->outcomes.all(), 20U);
    EXPECT_EQ(report->latency.count(), wanted == Outcome::ok ? 20U : 0U);
    EXPECT_EQ(report->first_failure.has_value(), wanted != Outcome::ok);
}

} // namespace

TEST(LoadClient, WholeAnswersAreOk) {
    const Server server([](int fd) { write_all(fd, whole_answer); });
    expect_all(brief(server.to), Outcome::ok);
}

TEST(LoadClient, AnAnswerInPiecesIsOk) {
    const Server server([](int fd) {
        for (const char& byte : whole_answer)
            write_all(fd, {&byte, 1});
    });
    expect_all(brief(server.to), Outcome::ok);
}

TEST(LoadClient, EofWithoutAByteIsEmpty) {
    const Server server([](int) {});
    expect_all(brief(server.to), Outcome::empty);
}

TEST(LoadClient, EofWithinTheBodyIsShort) {
    const Server server([](int fd) { write_all(fd, whole_answer.substr(0, whole_answer.size() - 1)); });
    expect_all(brief(server.to), Outcome::short_);
}

TEST(LoadClient, AnotherStatusIsBadStatus) {
    const Server server([](int fd) { write_all(fd, "HTTP/1.0 503 Service Unavailable\r\n\r\n"); });
    expect_all(brief(server.to), Outcome::bad_status);
}

TEST(LoadClient, RstInsteadOfAnAnswerIsReset) {
    const Server server(reset);
    expect_all(brief(server.to), Outcome::reset);
}

TEST(LoadClient, AClosedPortIsRefused) {
    const auto bound_only = listen_on_loopback(0); // keeps the port from others
    expect_all(brief(endpoint_of(bound_only.get())), Outcome::refused);
}

TEST(LoadClient, SilenceTimesOut) {
    const auto never_accepted = listen_on_loopback(64);
    auto options = brief(endpoint_of(never_accepted.get()));
    options.timeout = 150ms;
    const auto before = Clock::now();
    expect_all(options, Outcome::timed_out);
    EXPECT_LT(Clock::now() - before, 3s);
}

TEST(LoadClient, ASourceThatIsNotHereIsALocalFailure) {
    const Server server([](int fd) { write_all(fd, whole_answer); });
    auto options = brief(server.to);
    options.from = {*parse_address("192.0.2.1")};
    expect_all(options, Outcome::local);
    EXPECT_NE(run(options)->first_local_error.find("bind"), std::string::npos);
}

TEST(LoadClient, SourcesAreTakenInTurn) {
    std::atomic<int> second = 0;
    const Server server([&](int fd) {
        sockaddr_in peer{};
        socklen_t length = sizeof peer;
        ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length);
        second += peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK + 1) ? 1 : 0;
        write_all(fd, whole_answer);
    });
    auto options = brief(server.to);
    options.from = {*parse_address("127.0.0.1"), *parse_address("127.0.0.2"), *parse_address("::1")};
    expect_all(options, Outcome::ok);
    EXPECT_EQ(second, 10);
}

TEST(LoadClient, DestinationsAreTakenInTurn) {
    const Server good([](int fd) { write_all(fd, whole_answer); });
    const Server bad([](int) {});
    auto options = brief(good.to);
    options.to.push_back(bad.to);
    const auto report = run(options);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->outcomes[Outcome::ok], 10U);
    EXPECT_EQ(report->outcomes[Outcome::empty], 10U);
}

// The next ones start on time while the server is stuck, and each one's wait is counted from its intended
// start.
TEST(LoadClient, ASlowServerDelaysNoStartAndHidesNoLatency) {
    bool first = true;
    const Server server([&](int fd) {
        if (std::exchange(first, false))
            ::poll(nullptr, 0, 600); // stuck, once; the other 19 wait in the accept queue
        write_all(fd, whole_answer);
    });
    const auto report = run(brief(server.to));
    ASSERT_TRUE(report);
    EXPECT_EQ(report->outcomes[Outcome::ok], 20U) << to_text(*report);
    EXPECT_EQ(report->max_open, 20U);
    EXPECT_GE(report->latency.max(), 600ms);
    EXPECT_GE(report->latency.quantile(0), 500ms); // the last started 95 ms after the first
    EXPECT_GE(report->latency.over_threshold(), 20U);
    EXPECT_LT(report->connect.max(), 500ms); // the handshakes were not delayed
}

// A generator that was held up itself says so, and its requests' latency counts from when they should have
// started.
TEST(LoadClient, ItsOwnLatenessIsToldAndPartOfTheLatency) {
    const Server server([](int fd) { write_all(fd, whole_answer); });
    auto options = brief(server.to);
    options.progress = [](const Progress&) { ::poll(nullptr, 0, 300); }; // in the generator's own thread
    const auto report = run(options);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->outcomes[Outcome::ok], 20U) << to_text(*report);
    EXPECT_GE(report->max_lateness, 290ms);
    EXPECT_GE(report->latency.quantile(0.5), 200ms);
    EXPECT_LT(report->achieved_rate, 100); // of 200
}

// What the generator missed is not blamed on the server.
TEST(LoadClient, StartsLaterThanTheTimeoutAreLocalFailures) {
    const Server server([](int fd) { write_all(fd, whole_answer); });
    auto options = brief(server.to);
    options.duration = 250ms;
    options.timeout = 150ms;
    bool first = true;
    options.progress = [&](const Progress&) {
        if (std::exchange(first, false))
            ::poll(nullptr, 0, 500);
    };
    const auto report = run(options);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->outcomes.all(), 50U);
    EXPECT_GE(report->outcomes[Outcome::local], 1U) << to_text(*report);
    EXPECT_NE(report->first_local_error.find("late"), std::string::npos);
}

// The server keeps the connection open: only the client's own reset can end it before the timeout.
TEST(LoadClient, ResetCloseEndsAWholeAnswerByRst) {
    std::atomic<int> resets = 0;
    const Server server([&](int fd) {
        write_all(fd, whole_answer);
        char byte = 0;
        resets += ::recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET ? 1 : 0;
    });
    auto options = brief(server.to);
    options.reset_close = true;
    expect_all(options, Outcome::ok);
    EXPECT_GE(resets, 19); // the server may not have seen the last one yet
}

TEST(LoadClient, TheScheduleEndsWithItsStopFd) {
    const Server server([](int fd) { write_all(fd, whole_answer); });
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const Fd reader(ends[0]);
    Fd writer(ends[1]);
    auto options = brief(server.to);
    options.duration = 1min;
    options.stop_fd = reader.get();
    std::uint64_t told = 0;
    options.progress = [&](const Progress& p) {
        if (++told == 2) // one second on
            writer.reset();
        EXPECT_EQ(p.failed, 0U);
    };
    const auto report = run(options);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->outcomes.failed(), 0U);
    EXPECT_GE(report->started, 190U);
    EXPECT_LT(report->elapsed, 30s);
}

TEST(LoadClient, TheReportIsCompleteInJson) {
    const Server server([](int fd) { write_all(fd, whole_answer); });
    const auto report = run(brief(server.to));
    ASSERT_TRUE(report);
    const auto json = to_json(*report);
    EXPECT_EQ(json["outcomes"]["ok"], 20);
    EXPECT_EQ(json["failed"], 0);
    EXPECT_NEAR(json["rate"]["achieved"].get<double>(), 200, 20);
    for (const char* key : {"p50", "p90", "p99", "p99_9", "max"})
        EXPECT_GT(json["latency_ms"][key].get<double>(), 0) << key;
    EXPECT_LE(json["latency_ms"]["p50"], json["latency_ms"]["max"]);
    EXPECT_EQ(json["latency_ms"]["over_500ms"], 0);
    EXPECT_TRUE(json["first_failure_s"].is_null());
    EXPECT_GE(json["max_lateness_ms"].get<double>(), 0);
}

TEST(LoadClient, WithoutADestinationOrARateItIsAUsageError) {
    EXPECT_EQ(run(Options{}).error().exit, Exit::usage);
    auto options = brief(*parse_endpoint("127.0.0.1:9"));
    options.rate = 0;
    EXPECT_EQ(run(options).error().exit, Exit::usage);
}

} // namespace syngate::load
