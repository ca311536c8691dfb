// SPDX-License-Identifier: GPL-2.0-or-later
// A listener is found as a SYN would find it, by its address and port. In a SO_REUSEPORT group the SYN's
// source port picks the member, and only its cookie tells which: ports are tried until all have come up.
#include "steer/socket_capture.hpp"

#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <map>

namespace syngate {
namespace {

// A member of a group of 1,000 stays unmet with a probability of e^-16.
constexpr std::uint16_t tries = 16000;

std::unexpected<Error> not_captured(const Listener& listener, const std::string& why, int code) {
    return failure(Exit::failed,
                   fmt::format("cannot steer to the listener on {} (socket {}): {}",
                               to_string(address_of(listener)), listener.inode, why),
                   code);
}

// The look-ups for one address and port.
class Search {
public:
    Search(SteerMaps& maps, const ListenAddress& at) : maps_(maps), at_(at) {
        // Whatever listens on every address is found where nobody can listen on that one alone.
        if (at.is_any())
            std::fill_n(at_.address.begin(), at.ipv6 ? 1 : 4, std::uint8_t{0xff});
    }

    Result<void> capture(const CaptureWant& want) {
        const auto known = source_ports_.find(want.listener.cookie);
        if (known != source_ports_.end() && store(known->second, want.slot) == want.listener.cookie)
            return {};
        while (next_ < tries) {
            const std::uint64_t cookie = store(++next_, want.slot);
            if (cookie == want.listener.cookie) {
                source_ports_[cookie] = next_;
                return {};
            }
            if (cookie == 0)
                break;
            source_ports_.try_emplace(cookie, next_);
        }
        maps_.clear_slot(want.slot);
        if (error_ != 0)
            return not_captured(want.listener, std::strerror(error_), error_);
        return not_captured(want.listener,
                            next_ < tries ? "it does not listen any more"
                                          : "look-ups do not find it; another sk_lookup program or a program "
                                            "of its SO_REUSEPORT group may choose in its place",
                            ENOENT);
    }

private:
    // Stores whatever the look-up finds. Its cookie; 0: nothing, or error_.
    std::uint64_t store(std::uint16_t source_port, std::uint32_t slot) {
        syngate_capture want{};
        std::ranges::copy(at_.address, want.address);
        want.port = at_.port;
        want.source_port = source_port;
        want.slot = slot;
        want.ipv6 = at_.ipv6;
        std::array<char, SYNGATE_CAPTURE_OFFSET + sizeof(want)> packet{};
        std::memcpy(packet.data() + SYNGATE_CAPTURE_OFFSET, &want, sizeof(want));
        bpf_test_run_opts run{};
        run.sz = sizeof(run);
        run.data_in = packet.data();
        run.data_size_in = packet.size();
        run.repeat = 1;
        const int r = bpf_prog_test_run_opts(maps_.capture_program(), &run);
        const int found = r < 0 ? r : static_cast<int>(run.retval);
        error_ = found < 0 ? -found : 0;
        return found == 1 ? maps_.cookie_in(slot) : 0;
    }

    SteerMaps& maps_;
    ListenAddress at_;
    std::map<std::uint64_t, std::uint16_t> source_ports_; // by cookie
    std::uint16_t next_ = 0;
    int error_ = 0;
};

} // namespace

Result<void> capture_listeners(SteerMaps& maps, const std::vector<CaptureWant>& wants) {
    std::map<ListenAddress, Search> searches;
    for (const CaptureWant& want : wants) {
        const ListenAddress at = address_of(want.listener);
        if (const auto r = searches.try_emplace(at, maps, at).first->second.capture(want); !r)
            return r;
    }
    return {};
}

} // namespace syngate
