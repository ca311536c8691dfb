// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/replayer.hpp"

#include "base/libbpf_messages.hpp"

#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <replay.skel.h>

#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1) // linux/bpf.h of 5.18
#endif

namespace syngate {

struct Replayer::Impl {
    ::replay* skeleton = nullptr;
    int replay_fd = -1;
    int probe_fd = -1;
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

} // namespace

Result<void> Replayer::probe(std::uint32_t ifindex) const {
    const std::array<std::uint8_t, 60> nothing{};
    return run_live(impl_->probe_fd, ifindex, nothing);
}

Result<void> Replayer::replay(std::uint32_t ifindex, std::span<const std::uint8_t> frame) const {
    return run_live(impl_->replay_fd, ifindex, frame);
}

} // namespace syngate
