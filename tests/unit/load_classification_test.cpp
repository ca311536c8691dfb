// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/answer.hpp"
#include "load/endpoint.hpp"
#include "load/outcome.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <set>

namespace syngate::load {

namespace {

Outcome verdict(std::string_view bytes) {
    Answer whole;
    whole.feed(bytes);
    Answer pieces; // however TCP cuts it
    for (const char& byte : bytes)
        pieces.feed({&byte, 1});
    EXPECT_EQ(whole.at_end(), pieces.at_end()) << bytes;
    EXPECT_EQ(whole.complete(), pieces.complete()) << bytes;
    return whole.at_end();
}

} // namespace

TEST(LoadOutcome, ErrorsAreTheServersOrOurOwn) {
    EXPECT_EQ(outcome_of_error(ECONNREFUSED), Outcome::refused);
    EXPECT_EQ(outcome_of_error(ECONNRESET), Outcome::reset);
    EXPECT_EQ(outcome_of_error(EPIPE), Outcome::reset);
    EXPECT_EQ(outcome_of_error(ETIMEDOUT), Outcome::timed_out);
    EXPECT_EQ(outcome_of_error(EHOSTUNREACH), Outcome::unreachable);
    for (const int code : {EMFILE, ENFILE, EADDRNOTAVAIL, EADDRINUSE, ENOBUFS, ENOMEM, EPERM, EINVAL})
        EXPECT_EQ(outcome_of_error(code), Outcome::local) << code;
}

TEST(LoadOutcome, EveryOneHasANameAndAllButOkAreFailures) {
    std::set<std::string_view> names;
    OutcomeCounts counts;
    for (std::size_t i = 0; i < outcome_count; ++i) {
        names.insert(name_of(static_cast<Outcome>(i)));
        counts.add(static_cast<Outcome>(i));
    }
    EXPECT_EQ(names.size(), outcome_count);
    EXPECT_FALSE(names.contains("?"));
    EXPECT_EQ(counts.all(), outcome_count);
    EXPECT_EQ(counts.failed(), outcome_count - 1);
}

TEST(LoadAnswer, WholeOnesAreOk) {
    EXPECT_EQ(verdict("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), Outcome::ok);
    EXPECT_EQ(verdict("HTTP/1.1 204 No Content\r\n\r\n"), Outcome::ok);
    EXPECT_EQ(verdict("HTTP/1.0 200 OK\n\nuntil EOF"), Outcome::ok);
    EXPECT_EQ(verdict("HTTP/1.0 200\r\ncontent-length:0\r\nX-Long: " + std::string(500, 'x') + "\r\n\r\n"),
              Outcome::ok);
}

TEST(LoadAnswer, CutOnesAreShortOrEmpty) {
    EXPECT_EQ(verdict(""), Outcome::empty);
    EXPECT_EQ(verdict("HTT"), Outcome::short_);
    EXPECT_EQ(verdict("HTTP/1.0 200 OK\r\n"), Outcome::short_);
    EXPECT_EQ(verdict("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok"), Outcome::short_);
    EXPECT_EQ(verdict("HTTP/1.0 503 No\r\nContent-Length: 3\r\n\r\nok"), Outcome::short_);
}

TEST(LoadAnswer, AWholeAnswerThatIsNoSuccessIsAFailureOfItsOwn) {
    EXPECT_EQ(verdict("HTTP/1.0 503 Service Unavailable\r\n\r\n"), Outcome::bad_status);
    EXPECT_EQ(verdict("SSH-2.0-x\r\n\r\n"), Outcome::bad_status);
}

TEST(LoadAnswer, OnlyALengthCompletesItBeforeEof) {
    Answer answer;
    answer.feed("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\no");
    EXPECT_FALSE(answer.complete());
    answer.feed("k");
    EXPECT_TRUE(answer.complete());
    Answer without;
    without.feed("HTTP/1.0 200 OK\r\n\r\nok");
    EXPECT_FALSE(without.complete());
}

TEST(LoadEndpoint, BothFamiliesAreParsed) {
    const auto v4 = parse_endpoint("192.0.2.1:8080");
    ASSERT_TRUE(v4);
    EXPECT_EQ(v4->family(), AF_INET);
    EXPECT_EQ(ntohs(reinterpret_cast<const sockaddr_in&>(v4->address).sin_port), 8080);
    const auto v6 = parse_endpoint("[2001:db8::1]:65535");
    ASSERT_TRUE(v6);
    EXPECT_EQ(v6->family(), AF_INET6);
    EXPECT_EQ(ntohs(reinterpret_cast<const sockaddr_in6&>(v6->address).sin6_port), 65535);
    EXPECT_EQ(parse_address("2001:db8::1")->family(), AF_INET6);
    EXPECT_EQ(parse_address("[::1]")->family(), AF_INET6);
    EXPECT_EQ(parse_address("127.0.0.1")->family(), AF_INET);
}

TEST(LoadEndpoint, BadOnesAreUsageErrors) {
    for (const char* text : {"", "192.0.2.1", ":80", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:80x",
                             "host:80", "2001:db8::1:80", "[192.0.2.1]:80", "[::1]", "192.0.2.1:-1"}) {
        const auto endpoint = parse_endpoint(text);
        ASSERT_FALSE(endpoint) << text;
        EXPECT_EQ(endpoint.error().exit, Exit::usage) << text;
    }
    EXPECT_FALSE(parse_address("192.0.2.1:80"));
}

} // namespace syngate::load
