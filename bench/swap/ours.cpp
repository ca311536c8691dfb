// SPDX-License-Identifier: GPL-2.0-or-later
// syngate: every mode, hook and policy.
#include "swap/contender.hpp"

#include "netns/iptables.hpp"

#include <fmt/format.h>
#include <stdexcept>

namespace syngate::bench {

namespace {

using namespace live;

struct How {
    std::string mode = "bpf";
    std::string hook = "tcx"; // of mode iptables: the variant
    std::string policy = "hold";
    Argv more = {};
};

AgentPlan plan_for(const Argv& server, const How& how) {
    AgentPlan plan{.server = server, .options = {"--policy", how.policy, "--mode", how.mode}};
    if (how.mode == "bpf")
        plan.options.insert(plan.options.end(), {"--hook", how.hook});
    else
        plan.extra_env.push_back(only_variant(how.hook));
    plan.options.insert(plan.options.end(), how.more.begin(), how.more.end());
    return plan;
}

class Syngate : public Contender {
public:
    Syngate(const AgentPlan& plan, std::string verb) : agent_(plan), verb_(std::move(verb)) {}
    ~Syngate() override {
        try {
            agent_.stop();
        } catch (const std::exception& error) { // its processes go with agent_
            progress(error.what());
        }
    }
    Json swap() override {
        const auto answer = agent_.ask(verb_);
        if (answer.value("exit", -1) != 0)
            throw std::runtime_error(fmt::format("syngate {} failed: {}", verb_, answer.dump(1)));
        Json said = Json::object();
        for (const char* key :
             {"window_us", "parked", "replayed", "replay_failed", "expired", "dropped", "left"})
            said[key] = answer.value(key, Json());
        for (const auto& step : answer["steps"])
            said["steps"][step["name"].get<std::string>()] = step["us"];
        return said;
    }

private:
    Agent agent_;
    std::string verb_;
};

Candidate candidate(const std::string& server, const std::function<Argv()>& argv, const How& how, Verb verb) {
    const bool blue_green = !how.more.empty();
    const auto name = how.policy == "flip"
                          ? fmt::format("{}: flip{}", server, blue_green ? " between two ports" : "")
                          : fmt::format("{}: {}, {} {}", server, how.policy, how.mode, how.hook);
    return {.name = name,
            .group = "ours",
            .server = server,
            .about = {{"mode", how.mode}, {"hook", how.hook}, {"policy", how.policy}},
            .start = [=] {
                return std::make_unique<Syngate>(plan_for(argv(), how),
                                                 verb == Verb::reload ? "reload" : "restart");
            }};
}

Argv haproxy() {
    return {"haproxy", "-f", haproxy_file()};
}
Argv haproxy_with_shards() {
    return {"haproxy", "-f", haproxy_file(false, true)};
}
Argv nginx() {
    return nginx_argv(nginx_file(false));
}
Argv nginx_with_reuseport() {
    return nginx_argv(nginx_file(true));
}
Argv plain() {
    return {built("syngate-serve"), std::to_string(port)};
}
Argv plain_at_a_port_of_its_own() {
    return {built("syngate-serve"), "{SYNGATE_PORT}"};
}

std::vector<How> every_gate() {
    std::vector<How> all;
    for (const char* policy : {"hold", "drop"}) {
        for (const char* hook : {"tcx", "tc", "xdp"})
            all.push_back({.hook = hook, .policy = policy});
        for (const char* variant : {"nft", "legacy"})
            all.push_back({.mode = "iptables", .hook = variant, .policy = policy});
    }
    return all;
}

} // namespace

Candidate flip_with_shards() {
    return candidate("HAProxy", haproxy_with_shards, {.policy = "flip"}, Verb::reload);
}

std::vector<Candidate> ours(Verb verb) {
    std::vector<Candidate> all;
    if (verb == Verb::reload) {
        all.push_back(candidate("HAProxy", haproxy, {.policy = "flip"}, verb));
        all.push_back(candidate("nginx", nginx_with_reuseport, {.policy = "flip"}, verb));
        all.push_back(candidate(
            "plain", plain_at_a_port_of_its_own,
            {.policy = "flip", .more = {"--ports", std::to_string(port), "--flip-ports", "8081,8082"}},
            verb));
    }
    for (const How& how : every_gate())
        all.push_back(candidate("HAProxy", haproxy, how, verb));
    all.push_back(candidate("nginx", nginx, {}, verb));
    if (verb == Verb::restart)
        for (const char* policy : {"hold", "drop"})
            all.push_back(candidate("plain", plain, {.policy = policy}, verb));
    return all;
}

} // namespace syngate::bench
