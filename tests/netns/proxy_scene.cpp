// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/proxy_scene.hpp"

#include "netns/internal.hpp"
#include "netns/iptables.hpp"

#include <arpa/inet.h>
#include <cstring>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;

void route(const Namespace& where, const char* v4, const char* v6) {
    must_run({"ip", "-4", "route", "add", "default", "via", v4}, {.where = &where});
    must_run({"ip", "-6", "route", "add", "default", "via", v6}, {.where = &where});
}

Process start_backend(const ClientHost& hosts, const Namespace& backend) {
    connect_by_veth({hosts.server, "back0", "10.88.0.1/24", "fd00:88::1/64"},
                    {backend, "back1", "10.88.0.2/24", "fd00:88::2/64"});
    for (const char* name : {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"})
        set_sysctl(name, "1");
    route(hosts.client, ClientHost::server_v4, ClientHost::server_v6);
    route(backend, "10.88.0.1", "fd00:88::1");
    HaproxyConfig config{.ports = {ProxyScene::backend_port, 80}};
    auto text = haproxy_config(config);
    text.resize(text.rfind("    http-request"));
    text += "    http-request return status 200 content-type text/plain lf-string %[src]\\n\n";
    return start_server(haproxy_argv(write_file("backend.cfg", text)), config.ports, {.where = &backend});
}

} // namespace

ProxyScene::ProxyScene() : backend_server(start_backend(hosts, backend)) {}

bool is_bpf(const std::string& way) {
    return way != "nft" && way != "legacy";
}

AgentPlan by_way(const std::string& way, AgentPlan plan) {
    if (is_bpf(way)) {
        plan.options.insert(plan.options.end(), {"--hook", way});
        return plan;
    }
    plan.options.insert(plan.options.end(), {"--mode", "iptables"});
    plan.extra_env.push_back(only_variant(way));
    return plan;
}

StoppedAgent::~StoppedAgent() {
    try {
        stop();
    } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
    }
}

ProxyScene::~ProxyScene() {
    run({"ip", "link", "delete", "back0"});
    for (const char* name : {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"})
        set_sysctl(name, "0");
}

std::string ProxyScene::transparent_config(const std::string& bind_options) {
    return write_file("proxy.cfg",
                      fmt::format("defaults\n"
                                  "    mode tcp\n"
                                  "    timeout connect 3s\n" // an agent that stops waits for its attempts
                                  "    retries 1\n"
                                  "    timeout client 30s\n"
                                  "    timeout server 30s\n"
                                  "listen four\n"
                                  "    bind 0.0.0.0:{0} {1}\n"
                                  "    source 0.0.0.0 usesrc clientip\n"
                                  "    server one {2}:{4}\n"
                                  "listen six\n"
                                  "    bind [::]:{0} v6only {1}\n"
                                  "    source [::] usesrc clientip\n"
                                  "    server one {3}:{4}\n",
                                  proxy_port, bind_options, backend_v4, backend_v6, backend_port));
}

std::string ProxyScene::intercepting_config(const Ports& ports) {
    std::string text = "defaults\n"
                       "    mode http\n"
                       "    timeout connect 5s\n"
                       "    timeout client 30s\n"
                       "    timeout server 30s\n";
    for (const auto port : ports)
        text += fmt::format("frontend on{0}\n"
                            "    bind 0.0.0.0:{0} transparent\n"
                            "    bind [::]:{0} v6only transparent\n"
                            "    http-request return status 200 content-type text/plain lf-string "
                            "\"%[dst] %[dst_port] by {0}\\n\"\n",
                            port);
    return write_file("intercepting.cfg", text);
}

std::optional<std::string> http_get(const Namespace& from, const robust::Target& to,
                                    std::uint16_t source_port, Duration patience) {
    const Time deadline = Clock::now() + patience;
    const auto left = [&] {
        return static_cast<int>(std::max<std::int64_t>(
            0, std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count()));
    };
    const bool v6 = to.address.find(':') != std::string::npos;
    const Inside inside(from);
    const Fd fd(::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage own{};
    sockaddr_storage peer{};
    own.ss_family = peer.ss_family = v6 ? AF_INET6 : AF_INET;
    socklen_t length = sizeof(sockaddr_in);
    if (v6) {
        length = sizeof(sockaddr_in6);
        reinterpret_cast<sockaddr_in6&>(own).sin6_port = htons(source_port);
        reinterpret_cast<sockaddr_in6&>(peer).sin6_port = htons(to.port);
        ::inet_pton(AF_INET6, to.address.c_str(), &reinterpret_cast<sockaddr_in6&>(peer).sin6_addr);
    } else {
        reinterpret_cast<sockaddr_in&>(own).sin_port = htons(source_port);
        reinterpret_cast<sockaddr_in&>(peer).sin_port = htons(to.port);
        ::inet_pton(AF_INET, to.address.c_str(), &reinterpret_cast<sockaddr_in&>(peer).sin_addr);
    }
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (source_port != 0 && ::bind(fd.get(), reinterpret_cast<sockaddr*>(&own), length) != 0)
        fail(fmt::format("cannot bind to port {}", source_port));
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&peer), length) != 0 && errno != EINPROGRESS)
        return {};
    pollfd ready{fd.get(), POLLOUT, 0};
    constexpr std::string_view request = "GET / HTTP/1.0\r\n\r\n";
    if (::poll(&ready, 1, left()) != 1 || ::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
                                              static_cast<ssize_t>(request.size()))
        return {};
    std::string answer;
    char buffer[4096];
    ready.events = POLLIN;
    while (::poll(&ready, 1, left()) == 1) {
        const ssize_t size = ::read(fd.get(), buffer, sizeof buffer);
        if (size < 0)
            return {};
        if (size > 0) {
            answer.append(buffer, static_cast<std::size_t>(size));
            continue;
        }
        const std::size_t body = answer.find("\r\n\r\n");
        if (body == answer.npos)
            return {};
        answer.erase(0, body + 4);
        while (answer.ends_with('\n'))
            answer.pop_back();
        return answer;
    }
    return {};
}

std::string network_state() {
    std::string all;
    for (const Argv& argv : {Argv{"ip", "-4", "rule"}, Argv{"ip", "-6", "rule"},
                             Argv{"ip", "-4", "route", "show", "table", "all"},
                             Argv{"ip", "-6", "route", "show", "table", "all"}, Argv{"iptables-save"},
                             Argv{"ip6tables-save"}, Argv{"sysctl", "-a", "-r", "^net\\."}})
        all += fmt::format("# {}\n{}", argv[0], must_run(argv));
    // What time alone changes: expiries, counters, comments with the time, and conntrack's or neighbours'
    // load.
    std::string steady;
    for (std::size_t begin = 0; begin < all.size();) {
        const std::size_t end = all.find('\n', begin);
        std::string line = all.substr(begin, end - begin);
        begin = end + 1;
        if (const std::size_t at = line.find(" expires "); at != line.npos)
            line.resize(at);
        if (line.starts_with("# ") || line.find("random") != line.npos ||
            line.find("conntrack_count") != line.npos)
            continue;
        steady += line + '\n';
    }
    return steady;
}

} // namespace syngate::live
