// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/robust_frames.hpp"

#include "netns/internal.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace syngate::live::robust {

namespace {

constexpr std::size_t ethernet_length = 14;
constexpr std::uint8_t flag_syn = 0x02;
constexpr std::uint8_t flag_ack = 0x10;

void put16(Bytes& bytes, std::size_t at, unsigned value) {
    bytes[at] = static_cast<std::uint8_t>(value >> 8);
    bytes[at + 1] = static_cast<std::uint8_t>(value);
}

std::uint16_t get16(const Bytes& bytes, std::size_t at) {
    return static_cast<std::uint16_t>(bytes[at] << 8 | bytes[at + 1]);
}

std::uint16_t checksum(const Bytes& bytes, std::size_t from, std::size_t to, std::uint64_t sum = 0) {
    for (std::size_t i = from; i + 1 < to; i += 2)
        sum += get16(bytes, i);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

Bytes ip_header(const Target& from, const Target& to) {
    const bool v6 = to.address.find(':') != std::string::npos;
    Bytes bytes(v6 ? 40 : 20);
    if (v6) {
        bytes[0] = 0x60;
        put16(bytes, 4, 20);
        bytes[6] = IPPROTO_TCP;
        bytes[7] = 64;
        ::inet_pton(AF_INET6, from.address.c_str(), &bytes[8]);
        ::inet_pton(AF_INET6, to.address.c_str(), &bytes[24]);
        return bytes;
    }
    bytes[0] = 0x45;
    put16(bytes, 2, 40);
    put16(bytes, 4, 4711); // an id of 0 would be chosen by the kernel
    bytes[6] = 0x40;       // don't fragment
    bytes[8] = 64;
    bytes[9] = IPPROTO_TCP;
    ::inet_pton(AF_INET, from.address.c_str(), &bytes[12]);
    ::inet_pton(AF_INET, to.address.c_str(), &bytes[16]);
    put16(bytes, 10, checksum(bytes, 0, 20));
    return bytes;
}

std::optional<Bytes> receive(int fd, Time until) {
    pollfd ready{fd, POLLIN, 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0)
        return {};
    Bytes bytes(65536);
    const auto size = ::read(fd, bytes.data(), bytes.size());
    if (size < 0)
        fail("cannot read a packet");
    bytes.resize(static_cast<std::size_t>(size));
    return bytes;
}

} // namespace

Bytes syn(const Target& from, const Target& to) {
    Bytes bytes = ip_header(from, to);
    const std::size_t tcp = bytes.size();
    const std::size_t addresses = tcp == 40 ? 8 : 12;
    bytes.resize(tcp + 20);
    put16(bytes, tcp, from.port);
    put16(bytes, tcp + 2, to.port);
    put16(bytes, tcp + 6, 1234); // the sequence number
    bytes[tcp + 12] = 5 << 4;
    bytes[tcp + 13] = flag_syn;
    put16(bytes, tcp + 14, 64000);
    const std::uint64_t pseudo =
        static_cast<std::uint16_t>(~checksum(bytes, addresses, tcp)) + std::uint64_t{IPPROTO_TCP} + 20;
    put16(bytes, tcp + 16, checksum(bytes, tcp, tcp + 20, pseudo));
    return bytes;
}

std::optional<TcpSeen> tcp_in(const Bytes& packet) {
    const bool v6 = !packet.empty() && packet[0] >> 4 == 6;
    const std::size_t tcp = v6 ? 40 : packet.empty() ? 0 : (packet[0] & 0xfU) * 4U;
    if (packet.size() < tcp + 20 || packet[v6 ? 6 : 9] != IPPROTO_TCP)
        return {};
    const auto flags = packet[tcp + 13] & (flag_syn | flag_ack);
    return TcpSeen{get16(packet, tcp), get16(packet, tcp + 2), flags == flag_syn,
                   flags == (flag_syn | flag_ack)};
}

Tun::Tun(const std::string& name, const std::vector<std::string>& addresses)
    : fd_(::open("/dev/net/tun", O_RDWR | O_CLOEXEC)) {
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (!fd_ || ::ioctl(fd_.get(), TUNSETIFF, &request) != 0)
        fail("cannot make a tun device");
    for (const auto& address : addresses)
        must_run({"ip", "address", "add", address, "dev", name});
    must_run({"ip", "link", "set", name, "up"});
}

void Tun::write(const Bytes& packet) const {
    if (::write(fd_.get(), packet.data(), packet.size()) != static_cast<ssize_t>(packet.size()))
        fail("cannot write to a tun device");
}

std::optional<TcpSeen> Tun::read_tcp(Duration deadline) const {
    const Time until = Clock::now() + deadline;
    while (const auto packet = receive(fd_.get(), until))
        if (const auto seen = tcp_in(*packet))
            return seen;
    return {};
}

Capture::Capture(const Namespace& where, const std::string& device) {
    const Inside inside(where);
    fd_ = Fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    if (!fd_ || ::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        fail("cannot capture on " + device);
}

std::optional<Bytes> Capture::next_syn(std::uint16_t source_port, Duration deadline) const {
    const Time until = Clock::now() + deadline;
    while (const auto frame = receive(fd_.get(), until)) {
        if (frame->size() < ethernet_length)
            continue;
        const auto seen = tcp_in(Bytes(frame->begin() + ethernet_length, frame->end()));
        if (seen && seen->is_syn && seen->source_port == source_port)
            return frame;
    }
    return {};
}

void send_raw(const Namespace& from, const Target& to, const Bytes& packet) {
    const Inside inside(from);
    const bool v6 = to.address.find(':') != std::string::npos;
    const Fd fd(::socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    sockaddr_in v4_address{};
    sockaddr_in6 v6_address{};
    v4_address.sin_family = AF_INET;
    v6_address.sin6_family = AF_INET6;
    ::inet_pton(v6 ? AF_INET6 : AF_INET, to.address.c_str(),
                v6 ? static_cast<void*>(&v6_address.sin6_addr) : &v4_address.sin_addr);
    const auto* address =
        v6 ? reinterpret_cast<const sockaddr*>(&v6_address) : reinterpret_cast<const sockaddr*>(&v4_address);
    if (::sendto(fd.get(), packet.data(), packet.size(), 0, address,
                 v6 ? sizeof v6_address : sizeof v4_address) != static_cast<ssize_t>(packet.size()))
        fail("cannot send a packet to " + to.address);
}

} // namespace syngate::live::robust
