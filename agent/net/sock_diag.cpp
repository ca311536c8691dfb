// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/sock_diag.hpp"

#include "net/listen_queues.hpp"
#include "net/netlink.hpp"
#include "net/syn_recv_age.hpp"
#include "probe/switches.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <fmt/format.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>
#include <utility>

namespace syngate {
namespace {

constexpr std::uint32_t state_bit(unsigned state) {
    return 1U << state;
}

// The kernel runs the byte code on each socket in the wanted state; beyond this many ranges of ports
// the copying of sockets that nobody wants is cheaper.
constexpr std::size_t bytecode_ranges = 32;

using PortRange = std::pair<std::uint16_t, std::uint16_t>;

std::vector<PortRange> port_ranges(const PortSet& ports) {
    std::vector<PortRange> ranges;
    for (const std::uint16_t port : ports) {
        if (!ranges.empty() && ranges.back().second + 1 == port)
            ranges.back().second = port;
        else
            ranges.emplace_back(port, port);
    }
    return ranges;
}

// "The source port lies in one of the ranges" in inet_diag's byte code: each instruction jumps forward
// by `yes` or `no` bytes; a jump to the very end accepts, one to four bytes beyond it refuses. A
// comparison is two instructions long, the second one only carries the port.
std::vector<inet_diag_bc_op> port_bytecode(const std::vector<PortRange>& ranges) {
    constexpr std::uint16_t op = sizeof(inet_diag_bc_op);
    constexpr std::uint16_t comparison = 2 * op;
    std::vector<inet_diag_bc_op> code;
    std::vector<std::size_t> jumps; // to the end
    const auto compare = [&](unsigned char how, std::uint16_t port, std::uint16_t no) {
        code.push_back({how, comparison, no});
        code.push_back({0, 0, port});
    };
    for (std::size_t i = 0; i < ranges.size(); ++i) {
        const auto [first, last] = ranges[i];
        if (first == last) {
            compare(INET_DIAG_BC_S_EQ, first, comparison + op);
        } else {
            compare(INET_DIAG_BC_S_GE, first, 2 * comparison + op);
            compare(INET_DIAG_BC_S_LE, last, comparison + op);
        }
        if (i + 1 < ranges.size()) { // without it the last comparison's `no` leads beyond the end
            jumps.push_back(code.size());
            code.push_back({INET_DIAG_BC_JMP, op, 0});
        }
    }
    for (const std::size_t jump : jumps)
        code[jump].no = static_cast<std::uint16_t>((code.size() - jump) * op);
    return code;
}

std::string purpose(std::uint32_t states) {
    if (states == state_bit(TCP_LISTEN))
        return "cannot list the listening TCP sockets";
    if (states == state_bit(TCP_SYN_RECV))
        return "cannot list the half-open TCP connections";
    return "cannot list the TCP connections";
}

Error explained(Error error) {
    if (error.code == ENOENT || error.code == EPROTONOSUPPORT) {
        error.exit = Exit::impossible;
        error.message += "; the kernel lacks INET_DIAG: load its module by `modprobe tcp_diag`";
    }
    return error;
}

struct DiagSocket : inet_diag_msg {
    bool ipv6_only = false; // only told of listening sockets
    std::optional<bool> transparent = {};
};

DiagSocket socket_in(const nlmsghdr& message) {
    const auto* begin = static_cast<const char*>(mnl_nlmsg_get_payload(&message));
    DiagSocket socket{*reinterpret_cast<const inet_diag_msg*>(begin)};
    for_each_attribute(begin + NLMSG_ALIGN(sizeof(inet_diag_msg)),
                       mnl_nlmsg_get_payload_len(&message) - NLMSG_ALIGN(sizeof(inet_diag_msg)),
                       [&](const nlattr& attribute) {
                           if (mnl_attr_get_type(&attribute) == INET_DIAG_SKV6ONLY)
                               socket.ipv6_only = netlink_value<std::uint8_t>(&attribute) != 0;
                           if (mnl_attr_get_type(&attribute) == INET_DIAG_SOCKOPT)
                               socket.transparent =
                                   netlink_value<inet_diag_sockopt>(&attribute).transparent != 0;
                       });
    return socket;
}

class SockDiag final : public Sockets {
public:
    explicit SockDiag(Netlink netlink) : netlink_(std::move(netlink)) {}

    void prepare() override {
        if (std::exchange(prepared_, true))
            return;
        auto queues = ListenQueues::load();
        if (queues)
            queues_ = std::move(*queues);
        else
            spdlog::debug("{}; the drain walks the table of all connections instead", queues.error().message);
    }

    Result<std::vector<Listener>> listeners() override {
        std::vector<Listener> found;
        const auto done = dump(
            state_bit(TCP_LISTEN), nullptr, [&] { found.clear(); },
            [&](const DiagSocket& m) {
                Listener listener;
                listener.ipv6 = m.idiag_family == AF_INET6;
                std::memcpy(listener.address.data(), m.id.idiag_src, listener.ipv6 ? 16 : 4);
                listener.port = ntohs(m.id.idiag_sport);
                listener.inode = m.idiag_inode;
                listener.cookie = m.id.idiag_cookie[0] | std::uint64_t{m.id.idiag_cookie[1]} << 32;
                listener.accept_queue = m.idiag_rqueue;
                listener.backlog = m.idiag_wqueue;
                listener.uid = m.idiag_uid;
                listener.device = m.id.idiag_if;
                listener.ipv6_only = m.ipv6_only;
                listener.transparent = m.transparent;
                found.push_back(listener);
            });
        if (!done)
            return std::unexpected(done.error());
        return found;
    }

    Result<std::vector<HalfOpen>> half_open(const PortSet& local_ports) override {
        std::vector<HalfOpen> found;
        const auto done = dump(
            state_bit(TCP_SYN_RECV), &local_ports, [&] { found.clear(); },
            [&](const inet_diag_msg& m) {
                found.push_back({ntohs(m.id.idiag_sport), m.idiag_retrans,
                                 syn_recv_age(m.idiag_retrans, std::chrono::milliseconds(m.idiag_expires))});
            });
        if (!done)
            return std::unexpected(done.error());
        return found;
    }

    Result<Pending> pending(const PortSet& local_ports, const std::set<std::uint64_t>& listening,
                            Duration handshake) override {
        prepare();
        if (!queues_)
            return Sockets::pending(local_ports, listening, handshake);
        const auto queues = queues_->read(listening);
        if (!queues)
            return std::unexpected(queues.error());
        Pending pending;
        for (const syngate_queue& queue : *queues) {
            pending.half_open += queue.young;
            pending.queued += queue.accept;
        }
        if (pending.half_open + pending.queued > 0)
            return pending;
        // A handshake that ends is for a moment in neither queue; after it, in the accept queue.
        const auto queued = queued_in(listening);
        if (!queued)
            return std::unexpected(queued.error());
        pending.queued = *queued;
        return pending;
    }

    Result<std::size_t> connected(const PortSet& local_ports, const std::set<std::uint32_t>* among) override {
        std::size_t count = 0;
        const auto done = dump(
            state_bit(TCP_ESTABLISHED) | state_bit(TCP_CLOSE_WAIT) | state_bit(TCP_FIN_WAIT1) |
                state_bit(TCP_FIN_WAIT2),
            &local_ports, [&] { count = 0; },
            [&](const inet_diag_msg& socket) { count += !among || among->contains(socket.idiag_inode); });
        if (!done)
            return std::unexpected(done.error());
        return count;
    }

private:
    using OnSocket = std::function<void(const DiagSocket&)>;

    // ports: nullptr for any.
    Result<> dump(std::uint32_t states, const PortSet* ports, const std::function<void()>& restart,
                  const OnSocket& on_socket) {
        if (ports && ports->empty()) {
            restart();
            return {};
        }
        if (both_families_) {
            auto done = dump_both(states, ports, restart, on_socket);
            if (done)
                return done;
            if (done.error().code != EOPNOTSUPP && done.error().code != EINVAL)
                return std::unexpected(explained(done.error()));
            both_families_ = false;
        }
        // A family's part must survive the other's restart, hence one collection a family.
        std::vector<DiagSocket> sockets;
        for (const auto family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
            const std::size_t before = sockets.size();
            auto done = dump_family(
                family, states, ports, [&] { sockets.resize(before); },
                [&](const DiagSocket& m) { sockets.push_back(m); });
            // Without IPv6 in the kernel there is no handler for its family.
            if (!done && !(family == AF_INET6 && done.error().code == ENOENT))
                return std::unexpected(explained(done.error()));
        }
        restart();
        std::ranges::for_each(sockets, on_socket);
        return {};
    }

    // TCPDIAG_GETSOCK, the older request, has TCP of both families in one answer. Most of a dump's time
    // goes into the walk of the kernel's table of connections, so it takes half the time of two.
    Result<> dump_both(std::uint32_t states, const PortSet* ports, const std::function<void()>& restart,
                       const OnSocket& on_socket) {
        NetlinkRequest request(TCPDIAG_GETSOCK);
        auto& head = request.head<inet_diag_req>();
        head.idiag_family = AF_UNSPEC;
        head.idiag_states = states;
        return run(request, states, ports, restart, on_socket);
    }

    Result<> dump_family(std::uint8_t family, std::uint32_t states, const PortSet* ports,
                         const std::function<void()>& restart, const OnSocket& on_socket) {
        NetlinkRequest request(SOCK_DIAG_BY_FAMILY);
        auto& head = request.head<inet_diag_req_v2>();
        head.sdiag_family = family;
        head.sdiag_protocol = IPPROTO_TCP;
        head.idiag_states = states;
        return run(request, states, ports, restart, on_socket);
    }

    Result<> run(NetlinkRequest& request, std::uint32_t states, const PortSet* ports,
                 const std::function<void()>& restart, const OnSocket& on_socket) {
        if (ports) {
            const auto ranges = port_ranges(*ports);
            if (ranges.size() <= bytecode_ranges) {
                const auto code = port_bytecode(ranges);
                if (!request.put(INET_DIAG_REQ_BYTECODE, code.data(), code.size() * sizeof code[0]))
                    return failure(Exit::failed, purpose(states) + ": the port filter is too long");
            }
        }
        return netlink_.dump(request, purpose(states), restart, [&](const nlmsghdr& message) {
            if (mnl_nlmsg_get_payload_len(&message) < sizeof(inet_diag_msg))
                return;
            const DiagSocket m = socket_in(message);
            if (!ports || ports->contains(ntohs(m.id.idiag_sport)))
                on_socket(m);
        });
    }

    Netlink netlink_;
    bool prepared_ = false;
    std::unique_ptr<ListenQueues> queues_; // null: not possible here
    bool both_families_ = true;            // until the kernel says that it does not know the request
};

} // namespace

Result<std::size_t> Sockets::queued_in(const std::set<std::uint64_t>& listening) {
    const auto all = listeners();
    if (!all)
        return std::unexpected(all.error());
    std::size_t queued = 0;
    for (const Listener& listener : *all)
        if (listening.contains(listener.cookie))
            queued += listener.accept_queue;
    return queued;
}

Result<Pending> Sockets::pending(const PortSet& local_ports, const std::set<std::uint64_t>& listening,
                                 Duration handshake) {
    const auto all = half_open(local_ports);
    if (!all)
        return std::unexpected(all.error());
    // Second, since a handshake that has just ended is in the accept queue by now.
    const auto queued = queued_in(listening);
    if (!queued)
        return std::unexpected(queued.error());
    const auto young = std::ranges::count_if(*all, [&](const HalfOpen& h) { return h.age < handshake; });
    return Pending{static_cast<std::size_t>(young), *queued};
}

Result<std::unique_ptr<Sockets>> open_sock_diag() {
    if (switched_off(feature::sock_diag))
        return failure(Exit::impossible,
                       fmt::format("sock_diag is {}, and there is no other way to see sockets", off_text));
    auto netlink = Netlink::open(NETLINK_SOCK_DIAG);
    if (!netlink)
        return std::unexpected(netlink.error());
    return std::make_unique<SockDiag>(std::move(*netlink));
}

} // namespace syngate
