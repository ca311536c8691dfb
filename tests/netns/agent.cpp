// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/agent.hpp"

#include "netns/internal.hpp"

#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cctype>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <net/if.h>
#include <sstream>
#include <stdexcept>

namespace syngate::live {

namespace {

namespace fs = std::filesystem;

// linux/bpf.h of Debian 12 does not know it.
constexpr int tcx_ingress = 46;

Argv command_line(const AgentPlan& plan) {
    Argv argv = plan.before;
    argv.insert(argv.end(), {built("syngate"), "run"});
    argv.insert(argv.end(), plan.options.begin(), plan.options.end());
    argv.emplace_back("--");
    argv.insert(argv.end(), plan.server.begin(), plan.server.end());
    return argv;
}

RunResult run_verb(const std::string& verb) {
    return run({built("syngate"), verb, "--json"}, {}, std::chrono::minutes(1));
}

bool serves(const nlohmann::json& status) {
    return status.is_object() && status.value("ok", false) && !status["server"]["pid"].is_null() &&
           !status["busy"];
}

void add_lines(std::set<std::string>& all, const std::string& what, const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
        all.insert(fmt::format("{}: {}", what, line));
}

void add_files(std::set<std::string>& all, const std::string& directory) {
    std::error_code error;
    for (fs::recursive_directory_iterator entry(directory, error), end; !error && entry != end;
         entry.increment(error))
        all.insert("file " + entry->path().string());
}

void add_programs(std::set<std::string>& all, const std::string& device) {
    const auto index = static_cast<int>(::if_nametoindex(device.c_str()));
    add_lines(all, "filter of " + device, must_run({"tc", "filter", "show", "dev", device, "ingress"}));
    __u32 xdp = 0;
    if (::bpf_xdp_query_id(index, 0, &xdp) == 0 && xdp != 0)
        all.insert(fmt::format("XDP program on {}", device));
    __u32 ids[16];
    __u32 count = std::size(ids);
    if (::bpf_prog_query(index, static_cast<bpf_attach_type>(tcx_ingress), 0, nullptr, ids, &count) == 0 &&
        count != 0)
        all.insert(fmt::format("{} TCX programs on {}", count, device));
}

} // namespace

Agent::Agent(const AgentPlan& plan) : process_(command_line(plan), {.extra_env = plan.extra_env}) {
    const bool up = wait_until(
        [&] {
            if (!process_.runs())
                return true;
            const auto answer = run_verb("status");
            return answer.ok() && serves(nlohmann::json::parse(answer.out, nullptr, false));
        },
        std::chrono::seconds(20));
    if (!up || !process_.runs())
        throw std::runtime_error(fmt::format("syngate does not serve {}\n{}{}", fmt::join(plan.server, " "),
                                             process_.out(), process_.err()));
}

nlohmann::json Agent::ask(const std::string& verb) const {
    const auto result = run_verb(verb);
    auto answer = nlohmann::json::parse(result.out, nullptr, false);
    if (!answer.is_object() || result.status != ExitStatus{answer.value("exit", -1), 0})
        throw std::runtime_error(fmt::format("syngate {} (exit status {}) does not answer as it should:\n"
                                             "{}{}\nthe agent's log:\n{}",
                                             verb, result.status.code, result.out, result.err, log()));
    return answer;
}

std::set<std::string> Agent::bpf_objects() const {
    std::set<std::string> objects;
    for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/fdinfo", process_.pid()))) {
        std::ifstream file(entry.path());
        std::string key;
        for (unsigned long id = 0; file >> key;)
            if ((key == "prog_id:" || key == "map_id:" || key == "link_id:") && file >> id)
                objects.insert(fmt::format("{} {}", key.substr(0, key.size() - 1), id));
    }
    return objects;
}

ExitStatus Agent::stop() {
    process_.signal(SIGTERM);
    const auto status = process_.wait(std::chrono::seconds(20));
    if (!status)
        throw std::runtime_error("syngate does not end after SIGTERM\n" + log());
    return *status;
}

std::set<std::string> still_there(const std::set<std::string>& bpf_objects) {
    std::set<std::string> left;
    for (const auto& object : bpf_objects) {
        const auto id = static_cast<__u32>(std::stoul(object.substr(object.find(' '))));
        const Fd fd(object.starts_with("prog")  ? ::bpf_prog_get_fd_by_id(id)
                    : object.starts_with("map") ? ::bpf_map_get_fd_by_id(id)
                                                : ::bpf_link_get_fd_by_id(id));
        if (fd)
            left.insert(object);
    }
    return left;
}

std::set<std::string> traces() {
    std::set<std::string> all;
    add_lines(all, "qdisc", must_run({"tc", "qdisc", "show"}));
    add_files(all, "/sys/fs/bpf");
    add_files(all, "/run/syngate");
    struct if_nameindex* devices = ::if_nameindex();
    for (auto* each = devices; each != nullptr && each->if_index != 0; ++each)
        add_programs(all, each->if_name);
    ::if_freenameindex(devices);
    for (const pid_t process : processes())
        all.insert(fmt::format("process {}", process));
    return all;
}

} // namespace syngate::live
