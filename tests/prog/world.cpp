// SPDX-License-Identifier: GPL-2.0-or-later
#include "prog/world.hpp"

#include "base/fd.hpp"

#include <cerrno>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

namespace syngate::prog {

namespace {

constexpr const char* layout = R"(link set lo up
link add v0 address 02:00:00:00:00:01 type veth peer name v0p
link add v1 address 02:00:00:00:01:01 type veth peer name v1p
link set v0 up
link set v0p up
link set v1 up
link set v1p up
addr add 10.0.0.1/24 dev v0
addr add 2001:db8::1/64 dev v0 nodad
route add 10.9.0.0/16 dev v1
route add 10.9.0.7/32 dev v1 mtu lock 600
route add 2001:db8:9::/48 dev v1
neigh add 10.9.0.5 lladdr 02:00:00:00:01:02 dev v1
neigh add 2001:db8:9::5 lladdr 02:00:00:00:01:02 dev v1
)";

Result<> write_file(const std::string& path, std::string_view text) {
    const Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        return system_failure("cannot write " + path, errno);
    return {};
}

Result<> make_world() {
    if (unshare(CLONE_NEWNET) < 0)
        return system_failure("cannot make a network namespace, run as root", errno, Exit::impossible);
    return ip_batch(layout);
}

} // namespace

Result<> enter_world() {
    static const Result<> made = make_world();
    return made;
}

Result<> ip_batch(const std::string& commands) {
    const Fd input(memfd_create("ip-batch", MFD_CLOEXEC));
    if (!input || write(input.get(), commands.data(), commands.size()) < 0 ||
        lseek(input.get(), 0, SEEK_SET) < 0)
        return system_failure("cannot write commands for ip", errno);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input.get(), 0);
    char name[] = "ip", option[] = "-batch", file[] = "-";
    char path[] = "PATH=/usr/sbin:/sbin:/usr/bin:/bin";
    char *argv[] = {name, option, file, nullptr}, *environment[] = {path, nullptr};
    pid_t pid = -1;
    int error = ENOENT, status = 0;
    for (const char* program : {"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"})
        if (error == ENOENT)
            error = posix_spawn(&pid, program, &actions, nullptr, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    if (error)
        return system_failure("cannot run ip, install iproute2", error, Exit::impossible);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status)
        return failure(Exit::failed, "ip -batch failed on one of:\n" + commands);
    return {};
}

std::uint32_t index_of(const char* interface) {
    return if_nametoindex(interface);
}

Result<> set_forwarding(const std::string& interface, bool on) {
    for (const char* family : {"ipv4", "ipv6"}) {
        const std::string path =
            std::string("/proc/sys/net/") + family + "/conf/" + interface + "/forwarding";
        if (auto done = write_file(path, on ? "1" : "0"); !done)
            return done;
    }
    return {};
}

} // namespace syngate::prog
