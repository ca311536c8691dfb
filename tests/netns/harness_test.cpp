// SPDX-License-Identifier: GPL-2.0-or-later
// The harness proves itself, and shows the problem that everything else is about.
#include "netns/sandbox.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <gtest/gtest.h>
#include <set>
#include <stdexcept>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate::live {

namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t port = 8080;

std::vector<std::string> both_families() {
    return {fmt::format("{}:{}", ClientHost::server_v4, port),
            fmt::format("[{}]:{}", ClientHost::server_v6, port)};
}

// 1,000 connections a second for 2 s, IPv4 and IPv6 in turn, all answered.
void expect_served(const ClientHost& hosts, const Argv& more = {}) {
    const auto load = run_load(hosts.client, {.to = both_families(), .rate = 1000, .more = more}, "2s");
    EXPECT_EQ(load.status, (ExitStatus{0, 0})) << load.report.dump(2);
    EXPECT_EQ(load.started(), 2000U);
    EXPECT_EQ(load.outcome("ok"), 2000U) << load.report.dump(2);
    EXPECT_EQ(load.failed(), 0U);
}

// What this sandbox consists of when no test runs anything.
std::set<pid_t> only_ours() {
    return {1, ::getpid()};
}

Argv nested(const char* test) {
    return {"/proc/self/exe", "--gtest_also_run_disabled_tests",
            std::string("--gtest_filter=Nested.") + test};
}

bool forsaken_are_here() {
    return std::ranges::count_if(processes(), [](pid_t pid) {
               std::ifstream file(fmt::format("/proc/{}/comm", pid));
               std::string name;
               std::getline(file, name);
               return name == "sleep";
           }) == 2;
}

// Out of every process group and parent that the harness knows, as a daemon is, and deaf.
void forsake_sleepers() {
    for (int i = 0; i < 2; ++i)
        Namespace::current().call([] {
            ::setsid();
            if (::fork() == 0) {
                for (const int number : {SIGTERM, SIGHUP, SIGINT})
                    std::signal(number, SIG_IGN);
                ::execlp("sleep", "sleep", "600", nullptr);
                ::_exit(127);
            }
            return 0;
        });
    ASSERT_TRUE(wait_until(forsaken_are_here));
    write_file("left-behind", "by the nested sandbox");
}

// A fresh bpffs holds at most the kernel's own two iterators (CONFIG_BPF_PRELOAD).
bool is_fresh_bpffs(const std::string& directory) {
    const std::set<std::string> of_the_kernel{"maps.debug", "progs.debug"};
    return std::ranges::all_of(std::filesystem::directory_iterator(directory), [&](const auto& entry) {
        return of_the_kernel.contains(entry.path().filename().string());
    });
}

} // namespace

TEST(Servers, HaproxyServesBothFamilies) {
    const ClientHost hosts;
    const auto server = start_server(haproxy(), {port});
    expect_served(hosts);
}

TEST(Servers, HaproxyBeforeABackendServesBothFamilies) {
    const ClientHost hosts;
    const auto backend =
        start_server(nginx_argv(write_file("nginx.conf", nginx_config({.ports = {9000}}))), {9000});
    const auto config = haproxy_config({.ports = {port}, .backend = "127.0.0.1:9000"});
    const auto server = start_server(haproxy_argv(write_file("haproxy.cfg", config)), {port});
    expect_served(hosts);
}

TEST(Servers, NginxServesBothFamilies) {
    const ClientHost hosts;
    const auto server = start_server(nginx_argv(write_file("nginx.conf", nginx_config())), {port});
    expect_served(hosts);
}

TEST(Servers, PythonServesBothFamilies) {
    const ClientHost hosts;
    const auto server = start_server(python_argv(port), {port});
    // Its accept queue has room for 5: SYNs are dropped and sent again after 1, 3 and 7 s.
    expect_served(hosts, {"--timeout", "60s"});
}

TEST(Servers, AServerThatCannotStartIsNamedWithItsOutput) {
    try {
        const auto server = start_server(haproxy_argv(write_file("bad.cfg", "nonsense\n")), {port});
        FAIL() << "started";
    } catch (const std::runtime_error& error) {
        EXPECT_NE(std::string(error.what()).find("nonsense"), std::string::npos) << error.what();
    }
}

// The problem: between the old server's end and the new one's start there is nobody to answer.
TEST(Baseline, StopAndStartWithoutAGateRefusesConnections) {
    const ClientHost hosts;
    const auto config = write_file("haproxy.cfg", haproxy_config());
    auto old_server = start_server(haproxy_argv(config), {port});
    LoadRun load(hosts.client, {.to = both_families(), .rate = 1000});
    old_server.signal(SIGUSR1); // as gracefully as HAProxy can: what it has accepted is answered
    ASSERT_EQ(old_server.wait(), (ExitStatus{0, 0})) << old_server.err();
    const auto new_server = start_server(haproxy_argv(config), {port});
    const auto result = load.finish();
    EXPECT_EQ(result.status, (ExitStatus{1, 0}));
    EXPECT_GT(result.outcome("refused"), 0U) << result.report.dump(2);
    EXPECT_EQ(result.outcome("local"), 0U) << result.report.dump(2);
}

TEST(Sandbox, IsFreshWhateverIsAroundIt) {
    const ClientHost hosts;
    write_file("ours", "");
    ASSERT_EQ(::mkdir("/sys/fs/bpf/ours", 0700), 0);
    const auto result = run(nested("DISABLED_IsFresh"));
    EXPECT_TRUE(result.ok()) << result.out << result.err;
    EXPECT_EQ(::rmdir("/sys/fs/bpf/ours"), 0);
}

TEST(Sandbox, ReapsWhatLostItsParent) {
    must_run({"sh", "-c", "sh -c 'exit 0' & sh -c 'exit 3' &"});
    EXPECT_TRUE(wait_until([] { return processes() == only_ours(); }));
}

TEST(Sandbox, NothingOutlivesItsEnd) {
    {
        Process inner(nested("DISABLED_EndsWithProcessesLeft"));
        EXPECT_EQ(inner.wait(), (ExitStatus{0, 0})) << inner.out() << inner.err();
        EXPECT_NE(inner.out().find("[  PASSED  ] 1 test"), std::string::npos) << inner.out();
    }
    EXPECT_TRUE(wait_until([] { return processes() == only_ours(); }));
    EXPECT_FALSE(std::filesystem::exists(scratch() + "/left-behind"));
}

TEST(Sandbox, NothingOutlivesItsSigkill) {
    {
        Process inner(nested("DISABLED_WaitsWithProcessesLeft"));
        ASSERT_TRUE(wait_until([&] { return inner.out().contains("waiting\n"); }))
            << inner.out() << inner.err();
        EXPECT_TRUE(forsaken_are_here()); // seen from outside, so that their absence means something
        inner.signal(SIGKILL);
        EXPECT_EQ(inner.wait(), (ExitStatus{-1, SIGKILL}));
        // Before the destructor: its signal to the process group must not be what ends them.
        EXPECT_TRUE(wait_until([] { return processes() == only_ours(); }));
    }
    EXPECT_FALSE(std::filesystem::exists(scratch() + "/left-behind"));
}

TEST(Sandbox, AFailedTestFailsTheTier) {
    EXPECT_EQ(run(nested("DISABLED_Fails")).status, (ExitStatus{1, 0}));
    EXPECT_EQ(run(nested("DISABLED_Crashes")).status, (ExitStatus{128 + SIGKILL, 0}));
}

TEST(Nested, DISABLED_IsFresh) {
    const auto links = must_run({"ip", "-o", "link"});
    EXPECT_EQ(std::ranges::count(links, '\n'), 1) << links; // lo
    EXPECT_NE(links.find("LOOPBACK,UP"), std::string::npos) << links;
    EXPECT_EQ(must_run({"stat", "-f", "-c", "%T", "/sys/fs/bpf"}), "bpf_fs\n");
    EXPECT_EQ(must_run({"stat", "-f", "-c", "%T", "/run"}), "tmpfs\n");
    EXPECT_TRUE(is_fresh_bpffs("/sys/fs/bpf"));
    EXPECT_TRUE(std::filesystem::is_empty(scratch()));
    EXPECT_EQ(processes(), only_ours());
}

TEST(Nested, DISABLED_EndsWithProcessesLeft) {
    forsake_sleepers();
}

TEST(Nested, DISABLED_WaitsWithProcessesLeft) {
    forsake_sleepers();
    fmt::print("waiting\n");
    std::fflush(stdout);
    wait_until([] { return false; }, 60s); // for the SIGKILL
}

TEST(Nested, DISABLED_Fails) {
    FAIL() << "as it should";
}

TEST(Nested, DISABLED_Crashes) {
    ::raise(SIGKILL);
}

TEST(Namespaces, AreApartFromEachOther) {
    const Namespace other;
    const auto server = start_server(python_argv(port), {port}, {.where = &other});
    EXPECT_TRUE(listens(port, other));
    EXPECT_FALSE(listens(port));
    EXPECT_EQ(other.call([] { return listens(port) ? 42 : 1; }), 42);
    EXPECT_FALSE(listens(port)); // still here
    EXPECT_THROW(other.call([]() -> int {
        ::raise(SIGKILL);
        return 0;
    }),
                 std::runtime_error);
}

TEST(Processes, EndWithTheirObjectWithTheirWholeGroup) {
    {
        const Process process({"sh", "-c", "sleep 600 & sleep 600 & wait"});
        ASSERT_TRUE(wait_until(forsaken_are_here));
    }
    EXPECT_TRUE(wait_until([] { return processes() == only_ours(); }));
}

TEST(Processes, TellOutputStatusAndDeadline) {
    const auto result =
        run({"sh", "-c", "echo out; echo $GREETING >&2; exit 7"}, {.extra_env = {{"GREETING", "err"}}});
    EXPECT_EQ(result.status, (ExitStatus{7, 0}));
    EXPECT_EQ(result.out, "out\n");
    EXPECT_EQ(result.err, "err\n");
    EXPECT_THROW(run({"sleep", "600"}, {}, 50ms), std::runtime_error);
    EXPECT_THROW(run({"no-such-program"}), std::runtime_error);
    Process cat({"cat"}, {.open_stdin = true});
    cat.write_stdin("hello");
    EXPECT_TRUE(cat.runs());
    cat.close_stdin();
    EXPECT_EQ(cat.wait(), (ExitStatus{0, 0}));
    EXPECT_EQ(cat.out(), "hello");
    Process sleeper({"sleep", "600"});
    sleeper.signal(SIGTERM);
    EXPECT_EQ(sleeper.wait(), (ExitStatus{-1, SIGTERM}));
}

// Not a test: what syngate-load reaches here, to be run alone on a quiet machine.
TEST(Measure, DISABLED_RateOfTheLoadClient) {
    const ClientHost hosts;
    const auto server = start_server(haproxy(), {port});
    for (const double rate : {1000, 3000, 5000, 10000, 15000, 20000, 25000, 30000}) {
        const auto load = run_load(hosts.client, {.to = {both_families()[0]}, .rate = rate}, "5s");
        fmt::print("{:6.0f}/s wanted {:6.0f}/s achieved, failed {}, p50 {:.3f} p99 {:.3f} p99.9 {:.3f} max "
                   "{:.3f} ms, "
                   "over 500 ms {}, lateness at most {:.3f} ms, at most {} open\n",
                   rate, load.report["rate"]["achieved"].get<double>(), load.failed(), load.latency_ms("p50"),
                   load.latency_ms("p99"), load.latency_ms("p99_9"), load.latency_ms("max"),
                   load.report["latency_ms"]["over_500ms"].get<int>(),
                   load.report["max_lateness_ms"].get<double>(), load.report["max_open"].get<int>());
    }
}

} // namespace syngate::live
