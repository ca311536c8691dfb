// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/replayer.hpp"

#include "base/fd.hpp"
#include "base/libbpf_messages.hpp"

#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <replay.skel.h>
#include <sys/socket.h>

#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1) // linux/bpf.h of 5.18
#endif

namespace syngate {

struct Replayer::Impl {
    ::replay* skeleton = nullptr;
    int replay_fd = -1;
    int probe_fd = -1;
    Fd raw; // empty: not allowed
    ~Impl() { replay__destroy(skeleton); }
};

Replayer::Replayer() : impl_(std::make_unique<Impl>()) {}
Replayer::~Replayer() = default;

Result<std::unique_ptr<Replayer>> Replayer::load() {
    std::unique_ptr<Replayer> replayer(new Replayer);
    const LibbpfMessages messages;
    replayer->impl_->skeleton = replay__open_and_load();
    if (!replayer->impl_->skeleton)
        return failure(
            Exit::impossible,
            fmt::format("cannot load the replay program: {}; {}", std::strerror(errno), messages.text()),
            errno);
    replayer->impl_->replay_fd = bpf_program__fd(replayer->impl_->skeleton->progs.syngate_replay);
    replayer->impl_->probe_fd = bpf_program__fd(replayer->impl_->skeleton->progs.syngate_probe);
    replayer->impl_->raw = Fd(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
    return replayer;
}

namespace {

Result<void> run_live(int program, std::uint32_t ifindex, std::span<const std::uint8_t> frame) {
    xdp_md context{};
    context.data_end = static_cast<std::uint32_t>(frame.size());
    context.ingress_ifindex = ifindex;
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof(context);
    options.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    options.repeat = 1;
    options.batch_size = 1;
    if (const int r = bpf_prog_test_run_opts(program, &options); r < 0)
        return system_failure(
            fmt::format("cannot replay a frame of {} bytes on interface {}", frame.size(), ifindex), -r);
    return {};
}

constexpr std::uint32_t loopback_ifindex = 1; // LOOPBACK_IFINDEX in the kernel's net.h

bool is_ipv4(std::span<const std::uint8_t> frame) {
    return frame.size() >= sizeof(ether_header) + sizeof(iphdr) && frame[12] == 0x08 && frame[13] == 0x00;
}

Result<void> send_again(const Fd& raw, std::span<const std::uint8_t> frame) {
    const auto packet = frame.subspan(sizeof(ether_header));
    if (!raw)
        return failure(Exit::impossible, "cannot replay what local IPv4 clients sent over lo: that takes the "
                                         "capability CAP_NET_RAW; they try again after 1 s");
    sockaddr_in to{};
    to.sin_family = AF_INET;
    std::memcpy(&to.sin_addr, packet.data() + offsetof(iphdr, daddr), sizeof(to.sin_addr));
    if (sendto(raw.get(), packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&to),
               sizeof(to)) < 0)
        return system_failure(fmt::format("cannot replay a packet of {} bytes on lo", packet.size()), errno);
    return {};
}

} // namespace

Result<void> Replayer::probe(std::uint32_t ifindex) const {
    const std::array<std::uint8_t, 60> nothing{};
    return run_live(impl_->probe_fd, ifindex, nothing);
}

Result<void> Replayer::replay(std::uint32_t ifindex, std::span<const std::uint8_t> frame) const {
    if (ifindex == loopback_ifindex && is_ipv4(frame))
        return send_again(impl_->raw, frame);
    return run_live(impl_->replay_fd, ifindex, frame);
}

} // namespace syngate
