// SPDX-License-Identifier: GPL-2.0-or-later
// Who reloads or restarts a server, and how: one of the peers, or syngate.
#pragma once

#include "common/result.hpp"
#include "netns/sandbox.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace syngate::bench {

inline constexpr std::uint16_t port = 8080;

// A server that serves, in the sandbox's own namespace; gone with this object.
class Contender {
public:
    Contender() = default;
    virtual ~Contender() = default;
    Contender(const Contender&) = delete;
    Contender& operator=(const Contender&) = delete;
    // One reload or restart; returns when it is done, with what the contender itself says about it. Throws if
    // it did not succeed.
    virtual Json swap() = 0;
};

enum class Verb { reload, restart };

struct Candidate {
    std::string name;   // as in the tables
    std::string group;  // "nothing", "peer", "ours"
    std::string server; // "HAProxy", "nginx", "plain"
    std::string note = {};
    Json about = Json::object(); // mode, hook, policy
    std::string impossible = {}; // why it cannot be tried here
    std::function<std::unique_ptr<Contender>()> start;
};

std::vector<Candidate> reload_candidates();
std::vector<Candidate> restart_candidates();

// For these two.
std::vector<Candidate> reload_peers();
std::vector<Candidate> restart_peers();
std::vector<Candidate> ours(Verb verb);
Candidate socket_passing_with_shards();
Candidate flip_with_shards();

// The same for every candidate. With sockets, HAProxy gives its listening sockets to who asks for them; with
// shards, each of two threads has listening sockets of its own.
std::string haproxy_file(bool with_sockets = false, bool with_shards = false);
std::string haproxy_sockets();
std::string nginx_file(bool reuseport);

} // namespace syngate::bench
