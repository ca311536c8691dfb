// SPDX-License-Identifier: GPL-2.0-or-later
#include "net/listen_queues.hpp"

#include "base/fd.hpp"
#include "base/libbpf_messages.hpp"
#include "probe/switches.hpp"

#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <queues.skel.h>
#include <unistd.h>

namespace syngate {

struct ListenQueues::Impl {
    ::queues* skeleton = nullptr;
    bpf_link* link = nullptr;
    ~Impl() {
        bpf_link__destroy(link);
        queues__destroy(skeleton);
    }
};

ListenQueues::ListenQueues() : impl_(std::make_unique<Impl>()) {}
ListenQueues::~ListenQueues() = default;

Result<std::unique_ptr<ListenQueues>> ListenQueues::load() {
    if (switched_off(feature::bpf))
        return failure(Exit::impossible, std::string("bpf is ") + off_text);
    std::unique_ptr<ListenQueues> queues(new ListenQueues);
    const LibbpfMessages messages;
    const auto failed = [&] {
        return failure(
            Exit::impossible,
            fmt::format("cannot read listen queues by BPF: {}; {}", std::strerror(errno), messages.text()),
            errno);
    };
    queues->impl_->skeleton = queues__open_and_load();
    if (!queues->impl_->skeleton)
        return failed();
    queues->impl_->link = bpf_program__attach_iter(queues->impl_->skeleton->progs.syngate_queues, nullptr);
    if (!queues->impl_->link)
        return failed();
    return queues;
}

Result<std::vector<syngate_queue>> ListenQueues::read(const std::set<std::uint64_t>& wanted) {
    const Fd iterator(bpf_iter_create(bpf_link__fd(impl_->link)));
    if (!iterator)
        return system_failure("cannot iterate over the listening sockets", errno);
    std::vector<syngate_queue> found;
    // One record a read: the kernel stops its walk when the reader's buffer is full.
    syngate_queue queue{};
    while (found.size() < wanted.size()) {
        const ssize_t n = ::read(iterator.get(), &queue, sizeof(queue));
        if (n < 0)
            return system_failure("cannot read the queues of the listening sockets", errno);
        if (n < static_cast<ssize_t>(sizeof(queue)))
            break;
        if (wanted.contains(queue.cookie))
            found.push_back(queue);
    }
    return found;
}

} // namespace syngate
