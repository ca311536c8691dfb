// SPDX-License-Identifier: GPL-2.0-or-later
// Network namespaces of a live test, and the cables between them. Failures of the harness itself are thrown
// as std::runtime_error: GoogleTest turns them into a failed test, and destructors end what was started.
#pragma once

#include "base/fd.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace syngate::live {

// An anonymous network namespace; it lives as long as this object or a process in it. Its lo is up, duplicate
// address detection is off, and ip_local_port_range is wide.
class Namespace {
public:
    Namespace(); // a fresh one; the calling thread stays where it is
    static Namespace current();

    [[nodiscard]] int fd() const { return fd_.get(); }
    // For `ip link set ... netns`: only while this object lives.
    [[nodiscard]] std::string path() const;

    // Runs f in a forked child inside; what f returns is the child's exit status (0..255). A signal or an
    // exception that ends it is thrown here.
    int call(const std::function<int()>& f) const;

private:
    explicit Namespace(Fd fd) : fd_(std::move(fd)) {}
    Fd fd_;
};

// The calling thread is inside while this lives. Sockets stay in the namespace in which they were made.
class Inside {
public:
    explicit Inside(const Namespace& where);
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

private:
    Fd before_;
};

// One end of a veth pair. Addresses with their prefix length: "10.77.0.1/24", "fd00:77::1/64"; empty: none.
struct VethEnd {
    const Namespace& where;
    std::string name;
    std::string v4;
    std::string v6;
};

// Both ends up, with carrier and usable addresses. It goes with either namespace, a while after.
void connect_by_veth(const VethEnd& one, const VethEnd& other);

// Is there a TCP listener on this port, of any address and family, in the calling thread's namespace?
bool listens(std::uint16_t port);
bool listens(std::uint16_t port, const Namespace& where);

// Writes the sysctl ("net.ipv4.ip_forward") in the calling thread's network namespace.
void set_sysctl(std::string_view name, std::string_view value);

// The directory with one for each device (queues, statistics) of the namespace in which this is called first.
const std::string& device_files();

// What comes by a device of the sandbox's own namespace is received on one CPU, flow by flow (RPS), as from a
// network card. lo and veth hand each packet to the CPU that sent it: a client that its kernel wakes on
// another CPU, as it is when its SYN was answered late, sends its first data beside the ACK of the handshake.
// The kernel may then find neither the request, which the ACK has just taken out of the table of connections
// (inet_ehash_insert(), Linux 6.18), nor the connection, and resets it. No gate has a part in that, and a
// test that counts failures cannot have it.
void keep_flows_on_one_cpu(const std::string& device);

// The scene of nearly every live test: server and agent in the sandbox's own namespace, the client behind a
// veth.
struct ClientHost {
    static constexpr auto server_v4 = "10.77.0.1";
    static constexpr auto client_v4 = "10.77.0.2";
    static constexpr auto server_v6 = "fd00:77::1";
    static constexpr auto client_v6 = "fd00:77::2";
    static constexpr auto server_device = "srv0";
    static constexpr auto client_device = "cli0";

    Namespace server = Namespace::current();
    Namespace client;
    ClientHost();
    ~ClientHost(); // takes the veth away: a namespace's own end comes later than its last fd's
    ClientHost(const ClientHost&) = delete;
    ClientHost& operator=(const ClientHost&) = delete;
};

} // namespace syngate::live
