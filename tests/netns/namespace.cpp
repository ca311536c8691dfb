// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/namespace.hpp"

#include "netns/internal.hpp"
#include "netns/process.hpp"
#include "netns/sandbox.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <net/if.h>
#include <sched.h>
#include <stdexcept>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate::live {

namespace {

void change_to(const Fd& where) {
    if (::setns(where.get(), CLONE_NEWNET) != 0)
        fail("cannot enter a network namespace");
}

Fd open_current() {
    Fd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!fd)
        fail("cannot open the thread's network namespace");
    return fd;
}

void ip(const Argv& arguments, const Namespace& where) {
    Argv argv{"ip"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    must_run(argv, {.where = &where});
}

// Up, and the queues active: packets sent before that are lost.
bool has_carrier(const VethEnd& end) {
    const Inside inside(end.where);
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    end.name.copy(request.ifr_name, IFNAMSIZ - 1);
    return ::ioctl(socket.get(), SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_RUNNING) != 0;
}

void set_up(const VethEnd& end) {
    ip({"link", "set", end.name, "up"}, end.where);
    if (!end.v4.empty())
        ip({"-4", "address", "add", end.v4, "dev", end.name}, end.where);
    if (!end.v6.empty())
        ip({"-6", "address", "add", end.v6, "dev", end.name, "nodad"}, end.where);
}

// The listeners are the first lines of the table: reading ends there, however many connections follow.
bool listed(const char* table, std::uint16_t port) {
    std::ifstream file(table);
    std::string line;
    std::getline(file, line); // heading
    while (std::getline(file, line)) {
        char local[64];
        unsigned state = 0;
        if (std::sscanf(line.c_str(), "%*s %63s %*s %x", local, &state) != 2 || state != 0x0a)
            return false;
        const char* colon = std::strrchr(local, ':');
        unsigned found = 0;
        if (colon != nullptr && std::from_chars(colon + 1, colon + 5, found, 16).ec == std::errc{} &&
            found == port)
            return true;
    }
    return false;
}

} // namespace

void fail(const std::string& what) {
    const int code = errno;
    throw std::runtime_error(fmt::format("{}: {}", what, std::strerror(code)));
}

void prepare_network() {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0)
        fail("cannot set lo up in a fresh network namespace");
    // Wide, as the load client has many connections open while a gate is closed; the tests' servers stay
    // below.
    set_sysctl("net.ipv4.ip_local_port_range", "10000 65535");
    set_sysctl("net.ipv6.conf.all.accept_dad", "0");
    set_sysctl("net.ipv6.conf.default.accept_dad", "0");
}

Namespace::Namespace() {
    const Fd before = open_current();
    if (::unshare(CLONE_NEWNET) != 0)
        fail("cannot make a network namespace");
    struct Back {
        const Fd& to;
        ~Back() { ::setns(to.get(), CLONE_NEWNET); }
    } const back{before};
    fd_ = open_current();
    prepare_network();
}

Namespace Namespace::current() {
    return Namespace(open_current());
}

std::string Namespace::path() const {
    return fmt::format("/proc/{}/fd/{}", ::getpid(), fd_.get());
}

int Namespace::call(const std::function<int()>& f) const {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child < 0)
        fail("cannot fork into a network namespace");
    if (child == 0) {
        try {
            change_to(fd_);
            const int status = f();
            std::fflush(nullptr);
            ::_exit(status);
        } catch (const std::exception& error) {
            fmt::print(stderr, "{}\n", error.what());
            std::fflush(nullptr);
            ::abort();
        }
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            fail("cannot wait for a child in a network namespace");
    if (WIFSIGNALED(status))
        throw std::runtime_error(
            fmt::format("a function in a network namespace ended by signal {}", WTERMSIG(status)));
    return WEXITSTATUS(status);
}

Inside::Inside(const Namespace& where) : before_(open_current()) {
    if (::setns(where.fd(), CLONE_NEWNET) != 0)
        fail("cannot enter a network namespace");
}

Inside::~Inside() {
    if (::setns(before_.get(), CLONE_NEWNET) != 0)
        ::abort(); // everything after this would happen in the wrong place
}

void connect_by_veth(const VethEnd& one, const VethEnd& other) {
    ip({"link", "add", one.name, "type", "veth", "peer", "name", other.name, "netns", other.where.path()},
       one.where);
    set_up(one);
    set_up(other);
    if (!wait_until([&] { return has_carrier(one) && has_carrier(other); }))
        throw std::runtime_error(fmt::format("no carrier between {} and {}", one.name, other.name));
}

bool listens(std::uint16_t port) {
    return listed("/proc/thread-self/net/tcp", port) || listed("/proc/thread-self/net/tcp6", port);
}

bool listens(std::uint16_t port, const Namespace& where) {
    const Inside inside(where);
    return listens(port);
}

const std::string& device_files() {
    static const std::string path = [] {
        std::string directory = scratch() + "/sys";
        std::filesystem::create_directory(directory);
        if (::mount("sysfs", directory.c_str(), "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
            fail("cannot mount a sysfs");
        return directory + "/class/net";
    }();
    return path;
}

void keep_flows_on_one_cpu(const std::string& device) {
    const long cpus = std::min(::sysconf(_SC_NPROCESSORS_ONLN), 32L);
    std::ofstream file(fmt::format("{}/{}/queues/rx-0/rps_cpus", device_files(), device));
    file << fmt::format("{:x}", (1ULL << cpus) - 1) << std::flush;
    if (!file)
        fail(fmt::format("cannot set the CPUs that receive what comes by {}", device));
}

void set_sysctl(std::string_view name, std::string_view value) {
    std::string path(name);
    std::ranges::replace(path, '.', '/');
    const Fd file(::open(("/proc/sys/" + path).c_str(), O_WRONLY | O_CLOEXEC));
    if (!file || ::write(file.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size()))
        fail(fmt::format("cannot set {} to '{}'", name, value));
}

ClientHost::ClientHost() {
    connect_by_veth({server, server_device, std::string(server_v4) + "/24", std::string(server_v6) + "/64"},
                    {client, client_device, std::string(client_v4) + "/24", std::string(client_v6) + "/64"});
}

ClientHost::~ClientHost() {
    try {
        ip({"link", "delete", server_device}, server);
    } catch (const std::exception& error) { // a test may have deleted it
        fmt::print(stderr, "{}\n", error.what());
    }
}

} // namespace syngate::live
