// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/registry_protocol.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sys/random.h>

namespace syngate::registry {
namespace {

using Json = nlohmann::json;

constexpr std::string_view agent_prefix = "syngate.agent.";
constexpr std::string_view claimant_prefix = "syngate.claimant.";
constexpr std::size_t hex_digits = 16;

std::optional<std::uint64_t> parse_hex(std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, 16);
    if (text.size() != hex_digits || error != std::errc{} || end != text.data() + text.size())
        return {};
    return number;
}

std::string to_text(const PortSet& ports) {
    return ports.empty() ? "" : format_ports(ports);
}

std::optional<PortSet> ports_of(const Json& json, const char* key) {
    const auto member = json.find(key);
    if (member == json.end() || !member->is_string())
        return {};
    const auto& text = member->get_ref<const std::string&>();
    if (text.empty())
        return PortSet{};
    auto ports = parse_ports(text);
    if (!ports)
        return {};
    return std::move(*ports);
}

// A line of /proc/net/unix: "Num: RefCount Protocol Flags Type St Inode Path", numbers in hexadecimal.
std::optional<std::uint64_t> id_in_line(std::string_view line) {
    const std::size_t at = line.find(" @");
    if (at == line.npos || !line.substr(at + 2).starts_with(agent_prefix))
        return {};
    std::array<std::string_view, 5> field;
    std::size_t begin = 0;
    for (auto& text : field) {
        begin = std::min(line.find_first_not_of(' ', begin), line.size());
        const std::size_t end = std::min(line.find(' ', begin), line.size());
        text = line.substr(begin, end - begin);
        begin = end;
    }
    // Connections that were accepted carry the listener's name as well, and stay while someone holds them.
    if (field[3] != "00010000" || field[4] != "0005") // __SO_ACCEPTCON, SOCK_SEQPACKET
        return {};
    return parse_hex(line.substr(at + 2 + agent_prefix.size()));
}

} // namespace

std::string to_message(const Statement& statement) {
    const Peer& peer = statement.peer;
    PortSet waiting;
    std::ranges::set_difference(peer.waiting, statement.claiming, std::inserter(waiting, waiting.end()));
    return Json{
        {"id", peer.id},
        {"pid", peer.pid},
        {"command", peer.command},
        {"control", peer.control_path},
        {"since", peer.since_ns},
        {"ports", to_text(peer.ports)},
        {"claiming", to_text(statement.claiming)},
        {"waits", !peer.waiting.empty()},
        {"waiting", to_text(waiting)}, // and all that is being claimed: a message has room for that once
        {"transparent", peer.transparent},
        {"lends", peer.lends},
        {"claiming_transparent", statement.claiming_transparent}}
        .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<Statement> parse_message(std::string_view message) {
    const Json json = Json::parse(message, nullptr, false);
    if (!json.is_object())
        return {};
    for (const char* key : {"id", "since"})
        if (!json.contains(key) || !json[key].is_number_unsigned())
            return {};
    for (const char* key : {"command", "control"})
        if (!json.contains(key) || !json[key].is_string())
            return {};
    if (!json.contains("pid") || !json["pid"].is_number_integer())
        return {};
    auto ports = ports_of(json, "ports");
    auto claiming = ports_of(json, "claiming");
    auto waiting = json.contains("waiting") ? ports_of(json, "waiting") : PortSet{};
    if (!ports || !claiming || !waiting)
        return {};
    const auto says = [&](const char* key) {
        const auto member = json.find(key);
        return member != json.end() && member->is_boolean() && member->get<bool>();
    };
    if (says("waits"))
        waiting->insert(claiming->begin(), claiming->end());
    return Statement{.peer = {.id = json["id"].get<std::uint64_t>(),
                              .pid = json["pid"].get<std::int64_t>(),
                              .control_path = json["control"].get<std::string>(),
                              .command = json["command"].get<std::string>(),
                              .ports = std::move(*ports),
                              .waiting = std::move(*waiting),
                              .transparent = says("transparent"),
                              .lends = says("lends"),
                              .since_ns = json["since"].get<std::uint64_t>()},
                     .claiming = std::move(*claiming),
                     .claiming_transparent = says("claiming_transparent")};
}

std::string agent_name(std::uint64_t id) {
    return fmt::format("{}{:016x}", agent_prefix, id);
}

std::string claimant_name(const Age& age, std::uint64_t random) {
    return fmt::format("{}{:016x}.{:016x}.{:016x}", claimant_prefix, age.since_ns, age.id, random);
}

std::optional<Age> parse_claimant_name(std::string_view name) {
    if (!name.starts_with(claimant_prefix))
        return {};
    name.remove_prefix(claimant_prefix.size());
    if (name.size() != 3 * hex_digits + 2)
        return {};
    const auto since = parse_hex(name.substr(0, hex_digits));
    const auto id = parse_hex(name.substr(hex_digits + 1, hex_digits));
    if (!since || !id)
        return {};
    return Age{.since_ns = *since, .id = *id};
}

Result<std::set<std::uint64_t>> list_ids() {
    // The kernel hands the list out a page at a time, and may pass over a socket when a neighbour in its hash
    // bucket vanishes between two pages. It will hardly do that twice to the same one.
    std::set<std::uint64_t> ids;
    for (int pass = 0; pass < 2; ++pass) {
        std::ifstream file("/proc/thread-self/net/unix");
        if (!file)
            return system_failure("cannot list this network namespace's agents in /proc/net/unix (is /proc "
                                  "mounted for this PID namespace?)",
                                  errno);
        for (std::string line; std::getline(file, line);)
            if (const auto id = id_in_line(line))
                ids.insert(*id);
        if (file.bad())
            return system_failure("cannot read /proc/net/unix", errno);
    }
    return ids;
}

Result<std::uint64_t> random_id() {
    for (;;) {
        std::uint64_t id = 0;
        const ssize_t size = ::getrandom(&id, sizeof(id), 0);
        if (size < 0 && errno != EINTR)
            return system_failure("cannot get random bytes", errno);
        if (size == static_cast<ssize_t>(sizeof(id)) && id != 0)
            return id;
    }
}

} // namespace syngate::registry
