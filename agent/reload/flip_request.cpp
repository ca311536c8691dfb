// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/flip_request.hpp"

#include <fmt/format.h>

namespace syngate {
namespace {

Result<PortFlips> parse_flips(const nlohmann::json& json) {
    PortFlips flips;
    for (const auto& [text, target] : json.items()) {
        const auto port = parse_ports(text);
        if (!port)
            return std::unexpected(port.error());
        const auto to =
            parse_ports(target.is_number_unsigned() ? std::to_string(target.get<std::uint64_t>()) : "");
        if (port->size() != 1 || !to || to->size() != 1)
            return failure(Exit::usage, fmt::format("{}={} is no flip: write 80=8081", text, target.dump()));
        flips[*port->begin()] = *to->begin();
    }
    if (flips.empty())
        return failure(Exit::usage, "there is nothing to flip: write 80=8081");
    return flips;
}

} // namespace

nlohmann::json flip_request(const PortFlips& flips) {
    nlohmann::json request = {{"verb", "flip"}, {"flips", nlohmann::json::object()}};
    for (const auto& [port, target] : flips)
        request["flips"][std::to_string(port)] = target;
    return request;
}

nlohmann::json clear_request(const PortSet& ports) {
    return {{"verb", "flip"}, {"clear", true}, {"ports", ports.empty() ? "" : format_ports(ports)}};
}

Result<void> run_flip_request(Steerer& steerer, const nlohmann::json& request,
                              const std::function<Result<void>(const PortSet&)>& claim) {
    if (request.value("clear", false)) {
        const std::string list = request.value("ports", "");
        const auto ports = list.empty() ? Result<PortSet>(PortSet{}) : parse_ports(list);
        return ports ? steerer.clear(*ports) : Result<void>(std::unexpected(ports.error()));
    }
    const auto flips = parse_flips(request.value("flips", nlohmann::json::object()));
    if (!flips)
        return std::unexpected(flips.error());
    PortSet ports;
    for (const auto& [port, target] : *flips)
        ports.insert(port);
    if (const auto r = claim(ports); !r)
        return r;
    return steerer.flip(*flips);
}

std::string describe(const Steerer& steerer) {
    std::string text;
    for (const auto& [port, target] : steerer.flips())
        text += fmt::format("{}{}={}", text.empty() ? "flipped " : " ", port, target);
    return text.empty() ? "nothing is flipped" : text;
}

} // namespace syngate
