// SPDX-License-Identifier: GPL-2.0-or-later
// `syngate run` in a live test: started for a server, asked by the CLI as a user would, stopped by SIGTERM.
#pragma once

#include "netns/process.hpp"
#include "netns/servers.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace syngate::live {

struct AgentPlan {
    Argv server;       // as a user writes it behind --
    Argv options = {}; // of `syngate run`
    std::vector<std::pair<std::string, std::string>> extra_env = {};
    Argv before = {}; // a program that runs `syngate`, with its arguments
};

class Agent {
public:
    // Returns when the server serves. Throws with the log if it does not.
    explicit Agent(const AgentPlan& plan);

    // `syngate VERB --json`: the answer, whether it says ok or not. Throws if there is none.
    [[nodiscard]] nlohmann::json ask(const std::string& verb) const;
    [[nodiscard]] nlohmann::json status() const { return ask("status"); }
    [[nodiscard]] std::string log() const { return process_.err(); }
    void signal(int number) const { process_.signal(number); }

    // BPF programs, maps and links that its process holds now, as "prog_id 17". Their numbers are the
    // machine's and are not used again: whether one is still there can be asked whoever else uses BPF.
    [[nodiscard]] std::set<std::string> bpf_objects() const;

    // By SIGTERM. Throws with the log if it does not end.
    ExitStatus stop();

private:
    Process process_;
};

// Those of bpf_objects() that the kernel still has.
std::set<std::string> still_there(const std::set<std::string>& bpf_objects);

// What an agent adds to this sandbox and has to take away: qdiscs, filters, BPF programs on interfaces, pins,
// control sockets, processes. To be compared before the start and after the end.
std::set<std::string> traces();

} // namespace syngate::live
