// SPDX-License-Identifier: GPL-2.0-or-later
// client - proxy (the sandbox's own namespace) - backend: the proxy is the router between the two, and the
// backend tells each client the address that it sees.
#pragma once

#include "netns/robust_agent.hpp"
#include "netns/sandbox.hpp"

#include <optional>
#include <string>

namespace syngate::live {

struct ProxyScene {
    static constexpr auto backend_v4 = "10.88.0.2";
    static constexpr auto backend_v6 = "fd00:88::2";
    static constexpr std::uint16_t backend_port = 9000;
    static constexpr std::uint16_t proxy_port = 8080;

    ClientHost hosts; // its server is the proxy
    Namespace backend;
    Process backend_server; // HAProxy; answers with the address of its client

    ProxyScene();
    ~ProxyScene();
    ProxyScene(const ProxyScene&) = delete;
    ProxyScene& operator=(const ProxyScene&) = delete;

    // A configuration with `usesrc clientip` of both families, in a file.
    static std::string transparent_config(const std::string& bind_options = {});
    // A transparent listener of both families on each port, which answers with the address and port that its
    // client connected to, and with its own port: "10.88.0.2 80 by 8888".
    static std::string intercepting_config(const Ports& ports);
};

// Who diverts and intercepts: "tcx", "tc" or "xdp", or "nft" or "legacy" of iptables. Sets the options and
// the environment of an agent.
AgentPlan by_way(const std::string& way, AgentPlan plan);
bool is_bpf(const std::string& way);

// An agent that is stopped, and its server with it, at its object's end.
struct StoppedAgent : Agent {
    using Agent::Agent;
    ~StoppedAgent();
    StoppedAgent(const StoppedAgent&) = delete;
    StoppedAgent& operator=(const StoppedAgent&) = delete;
};

// GET / from that namespace, from source_port if it is not 0. Empty if no whole answer came in time.
std::optional<std::string> http_get(const Namespace& from, const robust::Target& to,
                                    std::uint16_t source_port = 0,
                                    Duration patience = std::chrono::seconds(3));

// Rules of both families, the routes of all tables, iptables and every sysctl below net, as text: to be
// compared before the start and after the end.
std::string network_state();

} // namespace syngate::live
