// SPDX-License-Identifier: GPL-2.0-or-later
// What is promised, once for every way to keep a gate: no client of a real server sees its reload or restart,
// over IPv4 and IPv6, and the agent leaves nothing behind.
#include "netns/iptables.hpp"
#include "netns/sandbox.hpp"

#include <algorithm>
#include <csignal>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <optional>
#include <ostream>
#include <thread>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;
constexpr std::uint16_t other_port = 8081;
constexpr std::uint16_t third_port = 8082;
// Of the reloads, so that each meets fresh connections; nothing is waited for by it.
constexpr auto rhythm = 250ms;

struct Way {
    std::string mode;
    std::string hook;
    std::string policy;
    [[nodiscard]] bool holds() const { return policy != "drop"; } // where a gate is closed at all
    [[nodiscard]] bool flips() const { return policy == "flip"; }
    [[nodiscard]] bool by_bpf() const { return mode == "bpf"; }
    // Of the sockets of one port iptables can choose none: it leads from one port to another.
    [[nodiscard]] bool flips_ports_only() const { return flips() && !by_bpf(); }
};

// GoogleTest's way to show a parameter.
void PrintTo(const Way& way, std::ostream* out) {
    *out << way.mode << ", " << way.hook << ", " << way.policy;
}

std::string name_of(const ::testing::TestParamInfo<Way>& info) {
    return info.param.mode + "_" + info.param.hook + "_" + info.param.policy;
}

std::vector<std::string> both_families(std::uint16_t to = port) {
    return {fmt::format("{}:{}", ClientHost::server_v4, to),
            fmt::format("[{}]:{}", ClientHost::server_v6, to)};
}

class Conformance : public ::testing::TestWithParam<Way> {
protected:
    Conformance() {
        keep_flows_on_one_cpu("lo");
        keep_flows_on_one_cpu(ClientHost::server_device);
    }
    ~Conformance() override {
        if (HasFailure() && agent_)
            fmt::print(stderr, "the agent's log:\n{}\n", agent_->log());
    }

    // False: this server cannot be flipped by this way, and the agent has said so and left nothing.
    bool start_agent(const Argv& server, const Argv& more = {}) {
        const Way& way = GetParam();
        before_ = traces();
        AgentPlan plan{.server = server, .options = {"--mode", way.mode, "--policy", way.policy}};
        if (way.by_bpf())
            plan.options.insert(plan.options.end(), {"--hook", way.hook});
        else
            plan.extra_env = {only_variant(way.hook)};
        plan.options.insert(plan.options.end(), more.begin(), more.end());
        if (way.flips_ports_only() && server.back() != "{SYNGATE_PORT}" && !contains(more, "restart")) {
            expect_to_be_refused(plan);
            return false;
        }
        agent_.emplace(plan);
        bpf_ = agent_->bpf_objects();
        EXPECT_EQ(agent_->status()["gate"]["mode"], way.mode);
        EXPECT_EQ(agent_->status()["gate"]["hook"], way.hook);
        EXPECT_NE(traces(), before_); // else their absence in the end would say nothing
        EXPECT_FALSE(bpf_.empty());
        return true;
    }

    static bool contains(const Argv& all, const std::string& one) {
        return std::ranges::find(all, one) != all.end();
    }

    void expect_to_be_refused(const AgentPlan& plan) {
        Argv argv{built("syngate"), "run"};
        argv.insert(argv.end(), plan.options.begin(), plan.options.end());
        argv.emplace_back("--");
        argv.insert(argv.end(), plan.server.begin(), plan.server.end());
        const auto result = run(argv, {.extra_env = plan.extra_env});
        EXPECT_EQ(result.status, (ExitStatus{3, 0})) << result.err;
        EXPECT_NE(result.err.find("from one port to another"), result.err.npos) << result.err;
        EXPECT_EQ(all_rules(), rules_before_);
        EXPECT_EQ(traces(), before_);
    }

    // The same again and again under way of the load; every one is expected to succeed. changing: the ports
    // that change hands, gated by the one policy and flipped by the other.
    void swap(const std::string& verb, int times, const std::string& changing = fmt::format("{}", port)) {
        const bool flips = GetParam().flips() && verb == "reload";
        const std::string gated = flips ? "" : changing;
        auto next = Clock::now();
        for (int i = 0; i < times; ++i) {
            std::this_thread::sleep_until(next += rhythm);
            next = std::max(next, Clock::now());
            const auto outcome = agent_->ask(verb);
            outcomes_.push_back(outcome);
            EXPECT_EQ(outcome["exit"], 0) << outcome.dump(2);
            EXPECT_EQ(outcome["gated"], gated) << outcome.dump(2);
            EXPECT_EQ(outcome["flipped"], flips ? changing : "") << outcome.dump(2);
            if (flips) {
                EXPECT_EQ(outcome["window_us"], 0);
                const auto steering = agent_->status()["steering"];
                if (steering["flips"].empty()) {
                    EXPECT_EQ(steering["generation"], 0); // the kernel's own rules again
                }
            }
            EXPECT_EQ(outcome["message"], "");
            EXPECT_EQ(outcome["lease_lost"], false);
            EXPECT_EQ(outcome["left"], 0) << outcome.dump(2);
        }
        std::this_thread::sleep_until(next + rhythm);
    }

    [[nodiscard]] std::uint64_t sum(const char* what) const {
        std::uint64_t all = 0;
        for (const auto& outcome : outcomes_)
            all += outcome[what].get<std::uint64_t>();
        return all;
    }
    [[nodiscard]] double longest_ms() const {
        double longest = 0;
        for (const auto& outcome : outcomes_)
            longest = std::max(longest, outcome["window_us"].get<double>() / 1000);
        return longest;
    }

    // slowest_ms: with hold, unless the server itself was down for that long on a busy machine; who meets a
    // gate that drops tries again after 1 s.
    void expect_unharmed(const LoadResult& load, double slowest_ms = 500) const {
        EXPECT_EQ(load.status.code, 0);
        EXPECT_EQ(load.failed(), 0U) << load.report.dump(2);
        EXPECT_GT(load.outcome("ok"), 20U);
        const double lateness_ms = load.report["max_lateness_ms"];
        if (GetParam().holds()) {
            EXPECT_LE(load.latency_ms("max"), std::max(slowest_ms, longest_ms() + 250) + lateness_ms)
                << load.report.dump(2);
        }
    }

    // rate: of the SYNs to gated ports.
    void expect_counters_agree(double rate) const {
        const auto verdicts = agent_->status()["gate"]["verdicts"];
        EXPECT_EQ(verdicts["parked"], sum("parked"));
        EXPECT_EQ(verdicts["dropped"], sum("dropped")) << verdicts.dump(2);
        EXPECT_EQ(sum("parked"), sum("replayed"));
        EXPECT_EQ(sum("replay_failed") + sum("expired"), 0U);
        EXPECT_EQ(sum(GetParam().holds() ? "dropped" : "parked"), 0U);
        if (GetParam().by_bpf()) { // iptables sees no packet while the gate is open
            EXPECT_GT(verdicts["gate_open"], 0U);
        }
        if (sum("window_us") == 0 && GetParam().flips() && rate > 0) {
            EXPECT_TRUE(wait_until([&] { return agent_->status()["steering"]["verdicts"]["steered"] > 0U; }));
        }
        const double expected = static_cast<double>(sum("window_us")) * rate / 1e6;
        if (expected >= 20) { // else it may well be that no client met a window
            EXPECT_GT(sum(GetParam().holds() ? "parked" : "dropped"), 0U);
        }
    }

    void stop_agent(ExitStatus expected = {0, 0}) {
        if (!agent_) // it was refused
            return;
        if (!GetParam().flips_ports_only()) { // gone with each window, not only at the end
            EXPECT_FALSE(all_rules().contains("-j SYNGATE-"));
        }
        EXPECT_EQ(agent_->stop(), expected);
        EXPECT_TRUE(wait_until([&] { return still_there(bpf_).empty(); }))
            << ::testing::PrintToString(still_there(bpf_));
        EXPECT_TRUE(wait_until([&] { return traces() == before_; }))
            << ::testing::PrintToString(traces()) << "\nbefore: " << ::testing::PrintToString(before_);
        EXPECT_EQ(all_rules(), rules_before_);
    }

    // Start, the verb under load, the end: what most servers are put through.
    void put_through(const Argv& server, const std::string& verb, int times, double rate = 1000,
                     double slowest_ms = 500) {
        if (!start_agent(server, {"--ports", fmt::format("{}", port)}))
            return;
        LoadRun load(hosts_.client, {.to = both_families(), .rate = rate});
        swap(verb, times);
        expect_unharmed(load.finish(), slowest_ms);
        expect_counters_agree(rate);
    }

    ClientHost hosts_;
    std::optional<Agent> agent_;
    std::vector<nlohmann::json> outcomes_;
    std::set<std::string> before_;
    std::string rules_before_ = (make_legacy_tables(), all_rules());
    std::set<std::string> bpf_;
};

// As a user writes it: -db is the agent's to add.
Argv haproxy(const std::string& config, const Argv& more = {}) {
    Argv argv{"haproxy"};
    argv.insert(argv.end(), more.begin(), more.end());
    argv.insert(argv.end(), {"-f", write_file("haproxy.cfg", config)});
    return argv;
}

} // namespace

TEST_P(Conformance, HaproxyReload) {
    put_through(haproxy(haproxy_config()), "reload", 5);
    stop_agent();
}

TEST_P(Conformance, HaproxyMasterWorkerReload) {
    put_through(haproxy(haproxy_config(), {"-W"}), "reload", 4);
    stop_agent();
}

// HAProxy hands its listening sockets over by itself: nothing changes hands, so there must be no window.
TEST_P(Conformance, HaproxyReloadWithExposedListeners) {
    const auto global =
        fmt::format("    stats socket {}/haproxy.sock level admin expose-fd listeners\n", scratch());
    if (!start_agent(haproxy(haproxy_config({.global = global}))))
        return;
    LoadRun load(hosts_.client, {.to = both_families(), .rate = 1000});
    swap("reload", 4, "");
    const auto result = load.finish();
    expect_unharmed(result);
    expect_counters_agree(0);
    EXPECT_EQ(sum("window_us") + sum("parked") + sum("dropped"), 0U);
    stop_agent();
}

TEST_P(Conformance, HaproxyRestart) {
    put_through(haproxy(haproxy_config()), "restart", 3);
    if (!agent_)
        return;
    EXPECT_GT(longest_ms(), 0);
    stop_agent();
}

// Every thread has a listening socket of its own.
TEST_P(Conformance, HaproxyReloadWithShards) {
    put_through(haproxy(haproxy_config({.bind_options = "shards by-thread", .global = "    nbthread 4\n"})),
                "reload", 5);
    stop_agent();
}

// One socket for both families.
TEST_P(Conformance, HaproxyDualStackReload) {
    std::string config = haproxy_config();
    const auto four = config.find("    bind 0.0.0.0"), six = config.find("    bind [::]");
    config.replace(four, config.find('\n', six) - four, fmt::format("    bind [::]:{} v4v6", port));
    put_through(haproxy(config), "reload", 4);
    stop_agent();
}

// Any server that shares its port and finishes what it has accepted.
TEST_P(Conformance, UnknownOverlappingServerReload) {
    const auto script = write_file("overlap.py", R"(
import http.server, signal, socket, sys, threading
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 1024
    daemon_threads = False
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
server = Server(("::", int(sys.argv[1])), Answer)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.05)
server.server_close()
)");
    if (!start_agent({"python3", script, fmt::format("{}", port)}, {"--reload", "overlap"}))
        return;
    LoadRun load(hosts_.client, {.to = both_families(), .rate = 100});
    swap("reload", 3);
    expect_unharmed(load.finish(), 1500);
    expect_counters_agree(100);
    stop_agent();
}

TEST_P(Conformance, NginxReload) {
    if (!start_agent(nginx_argv(write_file("nginx.conf", nginx_config()))))
        return;
    LoadRun load(hosts_.client, {.to = both_families(), .rate = 1000});
    swap("reload", 4, GetParam().flips() ? "" : fmt::format("{}", port)); // the same sockets all the time
    expect_unharmed(load.finish());
    expect_counters_agree(1000);
    stop_agent();
}

// Each worker has listening sockets of its own; those of the workers that go are closed with their queues.
TEST_P(Conformance, NginxReuseportReloadToFewerWorkers) {
    const auto config = [](int workers) {
        return write_file("nginx.conf", nginx_config({.listen_options = "reuseport", .workers = workers}));
    };
    if (!start_agent(nginx_argv(config(4))))
        return;
    LoadRun load(hosts_.client, {.to = both_families(), .rate = 1000});
    int before = 4;
    for (const int workers : {2, 3, 1}) {
        config(workers);
        // The sockets of workers that stay are kept.
        swap("reload", 1, GetParam().flips() && workers > before ? "" : fmt::format("{}", port));
        before = workers;
    }
    expect_unharmed(load.finish());
    expect_counters_agree(1000);
    stop_agent();
}

TEST_P(Conformance, NginxRestart) {
    put_through(nginx_argv(write_file("nginx.conf", nginx_config())), "restart", 3);
    stop_agent();
}

// No server could be less prepared: it knows no reload, ends on SIGTERM at once, and queues five connections.
// Who is dropped, or comes while these are full, tries again, 1 s and 3 s after the first time.
TEST_P(Conformance, PythonReload) {
    Argv server = python_argv(port);
    if (GetParam()
            .flips()) // blue-green: it gets a port of its own, where it listens as long as the old one does
        server.back() = "{SYNGATE_PORT}";
    put_through(server, "reload", 2, 100, 4500);
    stop_agent({128 + SIGTERM, 0});
}

// A server that could share its port, but shall not: each generation gets a port of its own.
TEST_P(Conformance, HaproxyBlueGreen) {
    if (!GetParam().flips())
        return; // HaproxyRestart is the same without
    std::string config = haproxy_config();
    for (std::size_t at = 0; (at = config.find(":8080", at)) != config.npos;)
        config.replace(at, 5, ":${SYNGATE_PORT}");
    if (!start_agent(haproxy(config), {"--ports", "8080", "--reload", "restart"}))
        return;
    auto to = both_families();
    to.insert(to.end(), {fmt::format("127.0.0.1:{}", port), fmt::format("[::1]:{}", port)});
    LoadRun local(hosts_.server, {.to = to, .rate = 300});
    LoadRun remote(hosts_.client, {.to = both_families(), .rate = 1000});
    swap("reload", 3);
    expect_unharmed(local.finish());
    expect_unharmed(remote.finish());
    expect_counters_agree(1300);
    stop_agent();
}

TEST_P(Conformance, ReloadAddsAPortAndRemovesAnother) {
    const auto config = [](const Ports& ports) { return haproxy_config({.ports = ports}); };
    if (!start_agent(haproxy(config({port, other_port}))))
        return;
    LoadRun load(hosts_.client, {.to = both_families(), .rate = 1000});
    write_file("haproxy.cfg", config({port, third_port}));
    swap("reload", 1); // neither the new nor the old port changes hands
    EXPECT_TRUE(listens(third_port));
    EXPECT_TRUE(wait_until([] { return !listens(other_port); })); // it was not waited for
    EXPECT_EQ(agent_->status()["server"]["ports"], fmt::format("{},{}", port, third_port));
    swap("reload", 1, fmt::format("{},{}", port, third_port));
    expect_unharmed(load.finish());
    expect_unharmed(run_load(hosts_.client, {.to = both_families(third_port), .rate = 500}, "200ms"));
    expect_counters_agree(1000);
    stop_agent();
}

TEST_P(Conformance, OnlyThePortsThatAreNamedAreGated) {
    if (!start_agent(haproxy(haproxy_config({.ports = {80, port}})), {"--ports", "80"}))
        return;
    LoadRun gated(hosts_.client, {.to = both_families(80), .rate = 500});
    LoadRun not_gated(hosts_.client, {.to = both_families(port), .rate = 500});
    swap("restart", 2, "80");
    expect_unharmed(gated.finish());
    expect_counters_agree(500);
    const auto unprotected = not_gated.finish();
    EXPECT_GT(unprotected.outcome("refused"), 0U) << unprotected.report.dump(2);
    stop_agent();
}

// What goes to an address of the host itself comes in on lo, whatever device holds the address.
TEST_P(Conformance, LocalClients) {
    if (!start_agent(haproxy(haproxy_config())))
        return;
    auto to = both_families();
    to.insert(to.end(), {fmt::format("127.0.0.1:{}", port), fmt::format("[::1]:{}", port)});
    LoadRun local(hosts_.server, {.to = to, .rate = 800});
    LoadRun remote(hosts_.client, {.to = both_families(), .rate = 400});
    swap("restart", 3);
    expect_unharmed(local.finish());
    expect_unharmed(remote.finish());
    expect_counters_agree(1200);
    stop_agent();
}

INSTANTIATE_TEST_SUITE_P(Ways, Conformance,
                         ::testing::Values(Way{"bpf", "tcx", "flip"}, Way{"bpf", "tcx", "hold"},
                                           Way{"bpf", "tcx", "drop"}, Way{"bpf", "tc", "hold"},
                                           Way{"bpf", "tc", "drop"}, Way{"bpf", "xdp", "hold"},
                                           Way{"bpf", "xdp", "drop"}, Way{"iptables", "nft", "hold"},
                                           Way{"iptables", "nft", "drop"}, Way{"iptables", "legacy", "hold"},
                                           Way{"iptables", "legacy", "drop"}, Way{"iptables", "nft", "flip"},
                                           Way{"iptables", "legacy", "flip"}),
                         name_of);

} // namespace syngate::live
