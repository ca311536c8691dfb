// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/status_text.hpp"

#include "base/clock.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace syngate {
namespace {

std::string time_of(const nlohmann::json& from, const char* key) {
    return format_duration(std::chrono::microseconds(from.value(key, std::int64_t{0})));
}

std::string outcome_line(const nlohmann::json& o) {
    const std::string gated = o.value("gated", "");
    std::string text = fmt::format("{} {}", o.value("action", ""), o.value("ok", false) ? "ok" : "failed");
    if (const std::string message = o.value("message", ""); !message.empty())
        text += ": " + message;
    if (const std::string flipped = o.value("flipped", ""); gated.empty() && !flipped.empty())
        return text + fmt::format(", flipped {} with no window", flipped);
    if (gated.empty())
        return text + ", no window";
    return text + fmt::format(", window {} on {}: {} parked, {} replayed, {} dropped",
                              time_of(o, "window_us"), gated, o.value("parked", 0), o.value("replayed", 0),
                              o.value("dropped", 0));
}

std::string gate_lines(const nlohmann::json& gate) {
    std::string text =
        fmt::format("gate     {}, policy {}, {} by {}", gate.value("closed", false) ? "closed" : "open",
                    gate.value("policy", ""), gate.value("mode", ""), gate.value("hook", ""));
    if (gate.value("closed", false))
        text += fmt::format(", ports {}, lease ends in {}", gate.value("ports", ""),
                            time_of(gate, "lease_left_us"));
    if (gate.value("mode", "") == "bpf") { // iptables has neither
        text += "\non      ";
        for (const auto& each : gate["interfaces"])
            text += fmt::format(" {} ({}{})", each.value("name", ""), each.value("hook", ""),
                                each.value("can_replay", false) ? "" : ", hold acts as drop");
        const std::string pins = gate.value("pins", "");
        text += "\npins     " + (pins.empty() ? "none: " + gate.value("no_pins_because", "") : pins);
    }
    text += "\npackets ";
    for (const auto& [reason, count] : gate["verdicts"].items())
        if (count.get<std::uint64_t>() > 0)
            text += fmt::format(" {} {}", reason, count.get<std::uint64_t>());
    return text;
}

std::string steering_lines(const nlohmann::json& steering) {
    std::string text;
    for (const auto& [port, target] : steering["flips"].items())
        text += fmt::format("\nflipped  {} to {}", port, target.get<std::uint16_t>());
    for (const auto& rule : steering["rules"])
        text += fmt::format("\nsteered  {} to {} of {} sockets, generation {}: {} connections",
                            rule.value("at", ""), rule.value("open", 0), rule.value("sockets", 0),
                            steering.value("generation", 0), rule.value("connections", std::uint64_t{0}));
    text += "\nlook-ups ";
    for (const auto& [reason, count] : steering["verdicts"].items())
        if (count.get<std::uint64_t>() > 0)
            text += fmt::format(" {} {}", reason, count.get<std::uint64_t>());
    return text;
}

std::string transparent_lines(const nlohmann::json& t) {
    if (!t.value("on", false))
        return "\ntransp.  off: " + t.value("because", "");
    std::string text = fmt::format("\ntransp.  mark {}, table {}, rule priority {}{}", t.value("mark", ""),
                                   t.value("table", 0), t.value("rule_priority", 0),
                                   t.value("no_ipv6_because", "").empty() ? "" : ", IPv4 only");
    for (const auto& rule : t["intercepts"])
        text += fmt::format(", intercepts {}", rule.get<std::string>());
    text += "\n        ";
    for (const auto& [reason, count] : t["verdicts"].items())
        if (count.get<std::uint64_t>() > 0)
            text += fmt::format(" {} {}", reason, count.get<std::uint64_t>());
    for (const auto& each : t["obstacles"])
        text += "\n         " + each.value("text", "");
    return text;
}

std::string joined(const nlohmann::json& names) {
    std::string text;
    for (const auto& name : names)
        text += (text.empty() ? "" : " ") + name.get<std::string>();
    return text.empty() ? "none" : text;
}

std::string capability_lines(const nlohmann::json& held) {
    if (!held.contains("effective"))
        return {};
    std::string text = fmt::format("holds    {}\n", joined(held["effective"]));
    if (held["permitted"] != held["effective"])
        text += fmt::format("         (permitted, for programs it starts: {})\n", joined(held["permitted"]));
    const auto& lacks = held["server_lacks"];
    text += "server's " +
            (lacks.size() < held["server"].size() ? "all but " + joined(lacks) : joined(held["server"]));
    // What is withheld beside it is withheld in name only.
    if (std::ranges::find(held["server"], nlohmann::json("CAP_SYS_ADMIN")) != held["server"].end())
        text += "; CAP_SYS_ADMIN, which is among them, allows what CAP_BPF and CAP_PERFMON do";
    return text + '\n';
}

std::string status_text(const nlohmann::json& s) {
    std::string text;
    if (s.contains("agent")) {
        text += fmt::format("agent    syngate {} {}, pid {}, {}\n", s["agent"].value("version", ""),
                            s["agent"].value("command", ""), s["agent"].value("pid", 0),
                            s["agent"].value("control", ""));
        text += capability_lines(s["agent"].value("capabilities", nlohmann::json::object()));
    }
    if (s.contains("server")) {
        const auto& server = s["server"];
        text += fmt::format("server   {} (pid {}, {}), ports {}", server.value("command", ""),
                            server["pid"].dump(), server.value("kind", ""), server.value("ports", ""));
        if (const std::string ports = server.value("not_covered", ""); !ports.empty())
            text += fmt::format(" (not covered: {})", ports);
        if (!server["retiring"].empty())
            text += fmt::format(", {} older still finishing", server["retiring"].size());
        text += '\n';
    }
    text += gate_lines(s["gate"]);
    if (s.contains("steering"))
        text += steering_lines(s["steering"]);
    if (s.contains("transparent"))
        text += transparent_lines(s["transparent"]);
    if (s.contains("reloads"))
        text += fmt::format("\nreloads  {}, {} failed; last: {}", s["reloads"].value("done", 0),
                            s["reloads"].value("failed", 0), outcome_line(s["last"]));
    return text;
}

} // namespace

std::string describe(const nlohmann::json& answer) {
    if (answer.contains("gate"))
        return status_text(answer);
    if (answer.contains("action"))
        return outcome_line(answer);
    if (answer.contains("window_us"))
        return fmt::format("open after {}: {} parked, {} replayed, {} dropped, {} expired",
                           time_of(answer, "window_us"), answer.value("parked", 0),
                           answer.value("replayed", 0), answer.value("dropped", 0),
                           answer.value("expired", 0));
    return answer.value("message", "");
}

} // namespace syngate
