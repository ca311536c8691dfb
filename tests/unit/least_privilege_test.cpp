// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/least_privilege.hpp"

#include "probe/scratch_child.hpp"

#include <cap-ng.h>
#include <functional>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace syngate {
namespace {

using namespace std::chrono_literals;

// In a child process, whose capabilities are its own to give up.
nlohmann::json after(
    const PrivilegeNeeds& needs, const std::function<void()>& first = [] {}) {
    const auto text = in_scratch_namespace(
        [&] {
            first();
            const auto dropped = drop_privileges(needs);
            return dropped ? held_privileges().dump() : nlohmann::json(dropped.error().message).dump();
        },
        30s);
    return text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json(text.error().message);
}

bool has(const nlohmann::json& names, const char* name) {
    return std::ranges::find(names, nlohmann::json(name)) != names.end();
}

class LeastPrivilege : public testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "needs root";
        if (!has(held_privileges()["effective"], "CAP_SETPCAP") ||
            !has(held_privileges()["server"], "CAP_BPF"))
            GTEST_SKIP() << "needs all of root's capabilities";
    }
};

TEST_F(LeastPrivilege, KeepsWhatAReloadNeeds) {
    const auto held = after({.bpf = true, .supervises = true});
    EXPECT_EQ(held["effective"],
              (nlohmann::json{"CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF"}));
    EXPECT_EQ(held["permitted"], held["effective"]) << "it could take them again";
    EXPECT_TRUE(has(held["server"], "CAP_SETUID")) << held;
    EXPECT_TRUE(has(held["server"], "CAP_BPF")) << "nobody knows what this server needs";
}

TEST_F(LeastPrivilege, AGateAloneNeedsTwo) {
    EXPECT_EQ(after({.bpf = true})["effective"], (nlohmann::json{"CAP_NET_ADMIN", "CAP_BPF"}));
    EXPECT_EQ(after({})["effective"], nlohmann::json{"CAP_NET_ADMIN"});
    EXPECT_EQ(after({.bpf = true, .queues = true})["effective"],
              (nlohmann::json{"CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"}));
}

TEST_F(LeastPrivilege, WhatIsForTheAgentAloneIsWithheldFromAServerThatIsKnown) {
    const auto held = after({.bpf = true, .supervises = true, .withhold_from_server = true});
    EXPECT_TRUE(has(held["effective"], "CAP_BPF"));
    EXPECT_FALSE(has(held["server"], "CAP_BPF"));
    EXPECT_FALSE(has(held["server"], "CAP_SYS_PTRACE"));
    EXPECT_TRUE(has(held["server_lacks"], "CAP_PERFMON"));
    EXPECT_TRUE(has(held["server"], "CAP_NET_ADMIN")) << "transparent sockets and set-mark are its own";
}

TEST_F(LeastPrivilege, ASocketInAnotherUsersDirectoryIsMadeAndRemoved) {
    EXPECT_EQ(after({.bpf = true, .others_files = true})["effective"],
              (nlohmann::json{"CAP_DAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_BPF"}));
}

TEST_F(LeastPrivilege, AServerThatUsesBpfKeepsIt) {
    const auto held =
        after({.bpf = true, .supervises = true, .withhold_from_server = true, .server_uses_bpf = true});
    EXPECT_TRUE(has(held["server"], "CAP_BPF"));
    EXPECT_FALSE(has(held["server"], "CAP_PERFMON"));
}

// As by systemd's User= and AmbientCapabilities=.
TEST_F(LeastPrivilege, AnotherUsersServerGetsNoneOfTheAgentsAmbientOnes) {
    const auto held = after({.bpf = true, .supervises = true, .withhold_from_server = true}, [] {
        ::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
        ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
        capng_clear(CAPNG_SELECT_CAPS);
        for (const unsigned capability : {CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE})
            capng_update(CAPNG_ADD,
                         static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE),
                         capability);
        ASSERT_EQ(capng_apply(CAPNG_SELECT_CAPS), 0);
        for (const unsigned capability : {CAP_BPF, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE})
            ASSERT_EQ(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), 0);
    });
    EXPECT_EQ(held["server"], (nlohmann::json{"CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"})) << held;
    EXPECT_TRUE(has(held["effective"], "CAP_BPF")) << held;
}

// Then a program gets no more by being started than its starter may take.
TEST_F(LeastPrivilege, WithNoNewPrivilegesTheServersStayPermittedAndNotInEffect) {
    const auto held = after({.bpf = true, .supervises = true, .withhold_from_server = true},
                            [] { ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); });
    EXPECT_FALSE(has(held["effective"], "CAP_SETUID"));
    EXPECT_TRUE(has(held["permitted"], "CAP_SETUID"));
    EXPECT_TRUE(has(held["server"], "CAP_SETUID"));
    EXPECT_FALSE(has(held["server"], "CAP_BPF"));
}

} // namespace
} // namespace syngate
