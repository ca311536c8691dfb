// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/robust_agent.hpp"

#include "netns/internal.hpp"

#include <arpa/inet.h>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>

namespace syngate::live::robust {

namespace {

std::set<pid_t> children_of(const std::set<pid_t>& parents) {
    std::set<pid_t> children;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        std::ifstream file(entry.path() / "stat");
        std::string text;
        if (!std::getline(file, text))
            continue;
        int parent = 0;
        if (std::sscanf(text.c_str() + text.rfind(')') + 1, " %*c %d", &parent) == 1 &&
            parents.contains(parent))
            children.insert(std::stoi(entry.path().filename()));
    }
    return children;
}

std::set<pid_t> descendants_of(pid_t process) {
    std::set<pid_t> all;
    for (std::set<pid_t> latest = children_of({process}); !latest.empty(); latest = children_of(latest))
        all.insert(latest.begin(), latest.end());
    return all;
}

std::string fresh_control() {
    static int number = 0;
    return fmt::format("{}/control-{}.sock", scratch(), ++number);
}

Argv with_control(const Argv& arguments, const std::string& control) {
    Argv argv = syngate({arguments.front(), "--control", control});
    argv.insert(argv.end(), arguments.begin() + 1, arguments.end());
    return argv;
}

struct Address {
    sockaddr_storage storage{};
    socklen_t length = 0;
    explicit Address(const Target& to) {
        auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
        auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
        if (::inet_pton(AF_INET, to.address.c_str(), &v4->sin_addr) == 1) {
            v4->sin_family = AF_INET;
            v4->sin_port = htons(to.port);
            length = sizeof *v4;
        } else if (::inet_pton(AF_INET6, to.address.c_str(), &v6->sin6_addr) == 1) {
            v6->sin6_family = AF_INET6;
            v6->sin6_port = htons(to.port);
            length = sizeof *v6;
        } else {
            throw std::runtime_error(to.address + " is no address");
        }
    }
};

Fd listen_on(std::uint16_t port, int backlog = 4096) {
    Fd fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    const int no = 0;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd.get(), backlog) != 0)
        fail(fmt::format("cannot listen on port {}", port));
    return fd;
}

Fd knocking(const Namespace& from, const Target& to, Duration patience, Reply& reply) {
    const Inside inside(from);
    const Address address(to);
    Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const linger reset{.l_onoff = 1, .l_linger = 0}; // no TIME_WAIT from thousands of knocks
    ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0 &&
        errno != EINPROGRESS && errno != ECONNREFUSED)
        fail(fmt::format("cannot knock at {} port {}", to.address, to.port));
    pollfd done{fd.get(), POLLOUT, 0};
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(patience).count();
    if (::poll(&done, 1, static_cast<int>(ms)) == 0) {
        reply = Reply::silent;
        return fd;
    }
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == ECONNRESET) { // accepted by a server that ended at once
        reply = Reply::refused;
        return fd;
    }
    if (error != 0 && error != ECONNREFUSED)
        throw std::runtime_error(
            fmt::format("knocking at {} port {}: {}", to.address, to.port, std::strerror(error)));
    // An error that connect() returned at once is not in SO_ERROR any more, but then there is no peer.
    sockaddr_storage peer{};
    size = sizeof peer;
    reply = error == 0 && ::getpeername(fd.get(), reinterpret_cast<sockaddr*>(&peer), &size) == 0
                ? Reply::connected
                : Reply::refused;
    return fd;
}

} // namespace

Argv syngate(const Argv& arguments) {
    Argv argv{built("syngate")};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    return argv;
}

Argv running(const Argv& options, const Argv& server) {
    Argv all{"run"};
    all.insert(all.end(), options.begin(), options.end());
    all.emplace_back("--");
    all.insert(all.end(), server.begin(), server.end());
    return all;
}

RunResult cli(const Argv& arguments, const SpawnOptions& options) {
    return run(syngate(arguments), options);
}

Agent::Agent(const Argv& arguments, const SpawnOptions& options)
    : control_(fresh_control()), process(with_control(arguments, control_), options) {
    const auto ready = [&] {
        if (!std::filesystem::exists(control_))
            return false;
        const auto status = ask("status");
        return status.value("exit", 1) == 0 && !status.value("busy", false);
    };
    bool up = false;
    wait_until([&] { return (up = ready()) || !process.runs(); }, std::chrono::seconds(20));
    if (!up || !process.runs())
        throw std::runtime_error(
            fmt::format("syngate {} is not up\n{}", fmt::join(arguments, " "), process.err()));
}

Agent::~Agent() {
    const bool ran = process.runs();
    if (ran)
        kill();
    for (const pid_t pid : started_)
        ::kill(pid, SIGKILL);
    // Their sockets go with them: the next test may want the port.
    for (const pid_t pid : started_)
        wait_until([&] { return ::kill(pid, 0) != 0; });
    if (ran) // the end of a test, not what it is about
        cli({"cleanup"});
}

void Agent::kill() {
    started_.merge(descendants_of(process.pid()));
    process.signal(SIGKILL);
    process.wait();
}

nlohmann::json Agent::ask(const std::string& verb, const Argv& more) const {
    Argv arguments{verb, "--control", control_, "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto result = cli(arguments);
    const auto json = nlohmann::json::parse(result.out, nullptr, false);
    return json.is_object() ? json : nlohmann::json{{"exit", result.status.code}, {"message", result.err}};
}

std::set<std::string> Agent::interfaces() const {
    std::set<std::string> names;
    const auto status = ask("status");
    for (const auto& each : status.at("gate").at("interfaces"))
        names.insert(each.at("name").get<std::string>());
    return names;
}

namespace {
Argv covering(const Argv& arguments) {
    Argv all{"exec"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.insert(all.end(), {"--", "sleep", "60"});
    return all;
}
} // namespace

Closed::Closed(const Argv& arguments, const SpawnOptions& options) : Agent(covering(arguments), options) {
    // Closed, drained, and the command started: SIGTERM before that would reach nobody.
    const auto sleeps = [&] { // other children of the agent's come and go
        for (const pid_t pid : descendants_of(process.pid()))
            if (std::string name;
                std::getline(std::ifstream(fmt::format("/proc/{}/comm", pid)), name) && name == "sleep")
                return true;
        return false;
    };
    if (!wait_until(sleeps))
        throw std::runtime_error("the covered command does not start\n" + process.err());
}

void Closed::end() {
    process.signal(SIGTERM);
    if (const auto status = process.wait(); status != ExitStatus{128 + SIGTERM, 0})
        throw std::runtime_error("`syngate exec` did not end with its command\n" + process.err());
}

Fd begin_to_connect(const Namespace& from, const Target& to) {
    const Inside inside(from);
    const Address address(to);
    Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length), -1);
    EXPECT_EQ(errno, EINPROGRESS);
    return fd;
}

Listener::Listener(std::uint16_t port, int backlog) : fd_(listen_on(port, backlog)) {}

Listener::Listener(const Namespace& where, std::uint16_t port)
    : fd_([&] {
          const Inside inside(where);
          return listen_on(port);
      }()) {}

bool Listener::has_pending(Duration patience) const {
    pollfd ready{fd_.get(), POLLIN, 0};
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(patience).count();
    return ::poll(&ready, 1, static_cast<int>(ms)) > 0;
}

Fd Listener::accept() const {
    return Fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

std::ostream& operator<<(std::ostream& out, Reply reply) {
    return out << (reply == Reply::connected ? "connected" : reply == Reply::refused ? "refused" : "silent");
}

Reply knock(const Namespace& from, const Target& to, Duration patience) {
    Reply reply{};
    knocking(from, to, patience, reply);
    return reply;
}

Fd connect_from(const Namespace& from, const Target& to) {
    Reply reply{};
    Fd fd = knocking(from, to, std::chrono::seconds(5), reply);
    if (reply != Reply::connected)
        throw std::runtime_error(fmt::format("cannot connect to {} port {}", to.address, to.port));
    return fd;
}

std::optional<Time> answered(const Namespace& from, const Target& to, Duration deadline) {
    std::optional<Time> when;
    wait_until(
        [&] {
            if (knock(from, to, std::chrono::milliseconds(20)) == Reply::silent)
                return false;
            when = Clock::now();
            return true;
        },
        deadline);
    return when;
}

std::string traffic_control() {
    std::string text = must_run({"tc", "qdisc", "show"});
    struct if_nameindex* all = ::if_nameindex();
    for (auto* each = all; each != nullptr && each->if_index != 0; ++each)
        for (const char* direction : {"ingress", "egress"})
            if (const auto shown = run({"tc", "filter", "show", "dev", each->if_name, direction}); shown.ok())
                text += fmt::format("{} {}:\n{}", each->if_name, direction, shown.out);
    ::if_freenameindex(all);
    return text;
}

std::set<std::string> pins(const std::string& directory) {
    std::set<std::string> paths;
    std::error_code error;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(directory, error))
        if (!entry.path().filename().string().ends_with(".debug"))
            paths.insert(entry.path());
    return paths;
}

} // namespace syngate::live::robust
