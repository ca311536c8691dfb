// SPDX-License-Identifier: GPL-2.0-or-later
#include "steer/socket_capture.hpp"

#include <algorithm>
#include <bpf/bpf.h>
#include <cerrno>
#include <fmt/format.h>
#include <set>
#include <unistd.h>

namespace syngate {
namespace {

// What is wanted leaves the map however the capture ends.
class WantedEntries {
public:
    explicit WantedEntries(int map) : map_(map) {}
    WantedEntries(const WantedEntries&) = delete;
    WantedEntries& operator=(const WantedEntries&) = delete;
    ~WantedEntries() {
        for (const std::uint64_t cookie : cookies_)
            bpf_map_delete_elem(map_, &cookie);
    }
    Result<void> add(const SocketCapture::Want& want) {
        if (const int r = bpf_map_update_elem(map_, &want.listener.cookie, &want.slot, BPF_ANY); r < 0)
            return system_failure("cannot write into the BPF map 'wanted'", -r);
        cookies_.push_back(want.listener.cookie);
        return {};
    }

private:
    int map_;
    std::vector<std::uint64_t> cookies_;
};

std::unexpected<Error> not_captured(const Listener& listener, const std::string& why, int code) {
    return failure(Exit::failed,
                   fmt::format("cannot steer to the listener on {} (socket {}): {}",
                               to_string(address_of(listener)), listener.inode, why),
                   code);
}

} // namespace

Result<std::unique_ptr<SocketCapture>> SocketCapture::make(SteerMaps& maps) {
    Fd link(bpf_link_create(maps.capture_program(), 0, BPF_TRACE_ITER, nullptr));
    if (!link)
        return system_failure("cannot make an iterator over listening sockets", errno, Exit::impossible);
    return std::unique_ptr<SocketCapture>(new SocketCapture(maps, std::move(link)));
}

Result<void> SocketCapture::capture(const std::vector<Want>& wants) {
    // A socket that is wanted in two slots takes two walks.
    for (std::vector<Want> left = wants; !left.empty();) {
        std::set<std::uint64_t> taken;
        const auto again = std::ranges::stable_partition(
            left, [&](const Want& want) { return taken.insert(want.listener.cookie).second; });
        const std::vector<Want> rest(again.begin(), again.end());
        left.erase(again.begin(), again.end());
        if (const auto r = capture_once(left); !r)
            return r;
        left = rest;
    }
    return {};
}

Result<void> SocketCapture::capture_once(const std::vector<Want>& wants) {
    WantedEntries entries(maps_.wanted());
    for (const Want& want : wants)
        if (const auto r = entries.add(want); !r)
            return r;
    const Fd iterator(bpf_iter_create(link_.get()));
    if (!iterator)
        return system_failure("cannot iterate over the listening sockets", errno);
    // One record a read: the kernel stops its walk when the reader's buffer is full, and behind the
    // listeners it would walk every connection.
    for (std::size_t met = 0; met < wants.size(); ++met) {
        syngate_captured captured{};
        const ssize_t size = ::read(iterator.get(), &captured, sizeof(captured));
        if (size < 0)
            return system_failure("cannot read from the iterator over the listening sockets", errno);
        if (size < static_cast<ssize_t>(sizeof(captured)))
            break;
        if (captured.error != 0) {
            const auto of = std::ranges::find(wants, captured.cookie,
                                              [](const Want& want) { return want.listener.cookie; });
            return not_captured(of == wants.end() ? wants.front().listener : of->listener,
                                std::strerror(-captured.error), -captured.error);
        }
    }
    for (const Want& want : wants)
        if (maps_.cookie_in(want.slot) != want.listener.cookie)
            return not_captured(want.listener, "it does not listen any more", ENOENT);
    return {};
}

} // namespace syngate
