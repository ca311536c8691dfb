// SPDX-License-Identifier: GPL-2.0-or-later
// What a user can do without syngate, as it is done: HAProxy as a daemon with a pid file, nginx by its
// signals, rules by iptables.
#include "swap/contender.hpp"

#include "server/process_tree.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <stdexcept>
#include <thread>

namespace syngate::bench {

namespace {

using namespace live;
using namespace std::chrono_literals;

bool exists(pid_t pid) {
    return ::kill(pid, 0) == 0;
}

void wait_for(const std::string& what, const std::function<bool()>& is_so) {
    if (!wait_until(is_so, 20s))
        throw std::runtime_error(fmt::format("waited for 20 s in vain: {}", what));
}

void wait_for_listener() {
    wait_for("nobody listens", [] { return listens(port); });
}

// SYNs to the port are dropped while this lives: one rule a port and family. The container that syngate
// supersedes had none for IPv6; ours is a favour to it.
class DropRules {
public:
    DropRules() { change("-I"); }
    ~DropRules() { change("-D"); }
    DropRules(const DropRules&) = delete;
    DropRules& operator=(const DropRules&) = delete;

private:
    static void change(const char* how) {
        for (const char* program : {"iptables", "ip6tables"})
            run({program, how, "INPUT", "-p", "tcp", "--dport", std::to_string(port), "--syn", "-j", "DROP"});
    }
};

// `haproxy -D -p PIDFILE -f FILE -sf PIDS`
class HaproxyDaemon : public Contender {
public:
    explicit HaproxyDaemon(bool passes_sockets = false, bool with_shards = false)
        : file_(haproxy_file(passes_sockets, with_shards)), passes_sockets_(passes_sockets) {
        std::filesystem::remove(pid_file_);
        must_run(command());
        wait_for_listener();
        generations_.push_back(newest());
    }
    ~HaproxyDaemon() override {
        try {
            generations_.push_back(newest());
        } catch (const std::exception&) { // there was none
        }
        for (const pid_t pid : generations_)
            ::kill(pid, SIGKILL);
        wait_until([&] { return std::ranges::none_of(generations_, exists); });
    }

    Json swap() override {
        begin();
        end();
        return {};
    }

protected:
    // Returns when the new one listens and has told the old one to finish, as the command does.
    void begin() {
        old_ = newest();
        Argv argv = command();
        if (passes_sockets_)
            argv.insert(argv.end(), {"-x", haproxy_sockets()});
        argv.insert(argv.end(), {"-sf", std::to_string(old_)});
        must_run(argv);
        generations_.push_back(newest());
    }
    void end() {
        wait_for("the old HAProxy does not end", [&] { return !exists(old_); });
        std::erase(generations_, old_);
    }

private:
    // In a session of its own: the harness kills the process group of what it has run, in which the daemon
    // still is for a moment.
    [[nodiscard]] Argv command() const {
        return {"setsid", "--wait", "haproxy", "-D", "-p", pid_file_, "-f", file_};
    }
    [[nodiscard]] pid_t newest() const { return std::stoi(read_file(pid_file_)); }

    std::string pid_file_ = scratch() + "/haproxy.pid";
    std::string file_;
    bool passes_sockets_;
    pid_t old_ = -1;
    std::vector<pid_t> generations_;
};

class DroppingHaproxy : public HaproxyDaemon {
public:
    explicit DroppingHaproxy(Duration quiet) : quiet_(quiet) {}
    Json swap() override {
        {
            const DropRules rules;
            std::this_thread::sleep_for(quiet_); // the method's own: it looks at nothing
            begin();
        }
        end();
        return {};
    }

private:
    Duration quiet_;
};

class MigratingHaproxy : public HaproxyDaemon {
public:
    MigratingHaproxy() { set_sysctl("net.ipv4.tcp_migrate_req", "1"); }
    ~MigratingHaproxy() override { set_sysctl("net.ipv4.tcp_migrate_req", "0"); }
};

// A master that replaces its workers when it is told to: HAProxy's, and nginx.
class Master : public Contender {
public:
    Master(const Argv& argv, int reload_signal)
        : master_(start_server(argv, {port})), reload_signal_(reload_signal) {
        wait_for("no worker comes", [&] { return !workers().empty(); });
    }
    Json swap() override {
        const auto before = workers();
        master_.signal(reload_signal_);
        wait_for("the workers are not replaced", [&] {
            const auto now = workers();
            return !now.empty() && std::ranges::none_of(before, [&](pid_t pid) { return now.contains(pid); });
        });
        return {};
    }

private:
    [[nodiscard]] std::set<pid_t> workers() const {
        auto all = process_tree(master_.pid());
        all.erase(master_.pid());
        return all;
    }
    Process master_;
    int reload_signal_;
};

// Stopped by its signal, and started again when it has ended.
class StopAndStart : public Contender {
public:
    StopAndStart(Argv argv, int stop_signal, bool dropping)
        : argv_(std::move(argv)), stop_signal_(stop_signal), dropping_(dropping), server_(start()) {}
    Json swap() override {
        std::optional<DropRules> rules;
        if (dropping_)
            rules.emplace();
        server_->signal(stop_signal_);
        if (!server_->wait(20s))
            throw std::runtime_error("the server does not end");
        server_ = start();
        return {};
    }

private:
    [[nodiscard]] std::unique_ptr<Process> start() const {
        return std::make_unique<Process>(start_server(argv_, {port}));
    }
    Argv argv_;
    int stop_signal_;
    bool dropping_;
    std::unique_ptr<Process> server_;
};

class Untouched : public HaproxyDaemon {
public:
    Json swap() override { return {}; }
};

template <class T, class... Args> std::function<std::unique_ptr<Contender>()> make(Args... args) {
    return [=] { return std::make_unique<T>(args...); };
}

Argv haproxy_master_argv() {
    return {"haproxy", "-W", "-db", "-f", haproxy_file(true)};
}

std::string no_migration() {
    return std::filesystem::exists("/proc/sys/net/ipv4/tcp_migrate_req")
               ? ""
               : "this kernel has no net.ipv4.tcp_migrate_req (Linux 5.14)";
}

} // namespace

std::string haproxy_sockets() {
    return scratch() + "/haproxy.sockets";
}

std::string haproxy_file(bool with_sockets, bool with_shards) {
    std::string global = "    maxconn 8000\n";
    if (with_shards)
        global += "    nbthread 2\n";
    if (with_sockets)
        global += fmt::format("    stats socket {} level admin expose-fd listeners\n", haproxy_sockets());
    return write_file(
        with_sockets ? "passing.cfg" : "haproxy.cfg",
        haproxy_config({.ports = {port},
                        .bind_options = with_shards ? "backlog 8192 shards by-thread" : "backlog 8192",
                        .global = global}));
}

std::string nginx_file(bool reuseport) {
    return write_file(
        reuseport ? "reuseport.conf" : "nginx.conf",
        nginx_config({.ports = {port}, .listen_options = reuseport ? "reuseport" : "", .workers = 2}));
}

Candidate socket_passing_with_shards() {
    return {
        .name = "haproxy -x", .group = "peer", .server = "HAProxy", .start = make<HaproxyDaemon>(true, true)};
}

std::vector<Candidate> reload_peers() {
    return {
        {.name = "no reload", .group = "nothing", .server = "HAProxy", .start = make<Untouched>()},
        {.name = "haproxy -sf", .group = "peer", .server = "HAProxy", .start = make<HaproxyDaemon>()},
        {.name = "haproxy -x", .group = "peer", .server = "HAProxy", .start = make<HaproxyDaemon>(true)},
        {.name = "HAProxy master-worker",
         .group = "peer",
         .server = "HAProxy",
         .start = [] { return std::make_unique<Master>(haproxy_master_argv(), SIGUSR2); }},
        {.name = "drop SYNs, 1 s",
         .group = "peer",
         .server = "HAProxy",
         .note = "iptables; the rule for IPv6 is ours",
         .start = make<DroppingHaproxy>(Duration(1s))},
        {.name = "drop SYNs, 0.2 s",
         .group = "peer",
         .server = "HAProxy",
         .note = "iptables; the rule for IPv6 is ours",
         .start = make<DroppingHaproxy>(Duration(200ms))},
        {.name = "haproxy -sf, tcp_migrate_req",
         .group = "peer",
         .server = "HAProxy",
         .impossible = no_migration(),
         .start = make<MigratingHaproxy>()},
        {.name = "nginx reload",
         .group = "peer",
         .server = "nginx",
         .start = [] { return std::make_unique<Master>(nginx_argv(nginx_file(false)), SIGHUP); }},
        {.name = "nginx reload, reuseport",
         .group = "peer",
         .server = "nginx",
         .start = [] { return std::make_unique<Master>(nginx_argv(nginx_file(true)), SIGHUP); }},
    };
}

std::vector<Candidate> restart_peers() {
    struct Server {
        const char* name;
        std::function<Argv()> argv;
        int stop_signal;
    };
    const std::vector<Server> servers{
        {"HAProxy", [] { return haproxy_argv(haproxy_file()); }, SIGUSR1},
        {"nginx", [] { return nginx_argv(nginx_file(false)); }, SIGQUIT},
        {"plain",
         [] {
             return Argv{built("syngate-serve"), std::to_string(port)};
         },
         SIGTERM},
    };
    std::vector<Candidate> all;
    for (const auto& server : servers)
        for (const bool dropping : {false, true})
            all.push_back({.name = fmt::format("{}: {}", server.name,
                                               dropping ? "drop SYNs, stop and start" : "stop and start"),
                           .group = "peer",
                           .server = server.name,
                           .note = dropping ? "iptables; the rule for IPv6 is ours" : "",
                           .start = [server, dropping] {
                               return std::make_unique<StopAndStart>(server.argv(), server.stop_signal,
                                                                     dropping);
                           }});
    return all;
}

} // namespace syngate::bench
