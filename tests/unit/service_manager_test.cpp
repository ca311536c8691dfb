// SPDX-License-Identifier: GPL-2.0-or-later
#include "event/service_manager.hpp"

#include "server/pid_file.hpp"
#include "server_test_support.hpp"

#include <cstdlib>
#include <sys/socket.h>
#include <sys/un.h>

namespace syngate {
namespace {

// As systemd has one.
struct NotifySocket {
    test::TempDir dir;
    Fd fd{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};

    NotifySocket() {
        const std::string path = dir / "notify";
        sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
        path.copy(address.sun_path, sizeof(address.sun_path) - 1);
        EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
        ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
    }
    ~NotifySocket() { ::unsetenv("NOTIFY_SOCKET"); }
    [[nodiscard]] std::string next() const {
        char buffer[1024];
        const ssize_t n = ::recv(fd.get(), buffer, sizeof(buffer), 0);
        return n < 0 ? "nothing" : std::string(buffer, static_cast<std::size_t>(n));
    }
};

TEST(ServiceManager, IsToldWhatTypeNotifyNeeds) {
    const NotifySocket systemd;
    tell_service_manager(ServiceState::ready, "serving");
    EXPECT_EQ(systemd.next(), "READY=1\nSTATUS=serving");
    tell_service_manager(ServiceState::reloading, "reload");
    const std::string reloading = systemd.next();
    EXPECT_TRUE(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC=")) << reloading;
    tell_service_manager(ServiceState::stopping, "stopping");
    EXPECT_TRUE(systemd.next().starts_with("STOPPING=1\n"));
    // What a check printed is no assignment, and must not make the message too long to be heard.
    tell_service_manager(ServiceState::ready, "failed: " + std::string(8192, 'x'));
    EXPECT_EQ(systemd.next().size(), std::string("READY=1\nSTATUS=").size() + 500);
    tell_service_manager(ServiceState::ready, "failed\nMAINPID=1");
    EXPECT_EQ(systemd.next(), "READY=1\nSTATUS=failed");
}

TEST(ServiceManager, WithoutOneNobodyIsTold) {
    ::unsetenv("NOTIFY_SOCKET");
    tell_service_manager(ServiceState::ready, "serving");
}

std::string content(const std::string& path) {
    std::ifstream stream(path);
    return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(PidFile, HasTheLatestNumberAndGoesWithItsOwner) {
    const test::TempDir dir;
    const std::string path = dir / "server.pid";
    {
        PidFile file(path);
        EXPECT_FALSE(std::filesystem::exists(path));
        ASSERT_TRUE(file.write(41));
        ASSERT_TRUE(file.write(42));
        EXPECT_EQ(content(path), "42\n");
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1) << "a draft stayed";
    }
    EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(PidFile, ThatASuccessorHasTakenOverStays) {
    const test::TempDir dir;
    const std::string path = dir / "server.pid";
    PidFile successor(path);
    {
        PidFile file(path);
        ASSERT_TRUE(file.write(41));
        ASSERT_TRUE(successor.write(51));
    }
    EXPECT_EQ(content(path), "51\n");
}

TEST(PidFile, WhatCannotBeWrittenIsNamed) {
    PidFile file("/proc/no/such.pid");
    const auto r = file.write(1);
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find("/proc/no/such.pid"), std::string::npos);
    EXPECT_NE(r.error().message.find("--pid-file"), std::string::npos);
    EXPECT_TRUE(PidFile("").write(1)) << "none is wanted";
}

} // namespace
} // namespace syngate
