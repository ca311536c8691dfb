// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/intercept.hpp"

#include "base/ports.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <fmt/format.h>
#include <optional>

namespace syngate {
namespace {

std::unexpected<Error> not_understood(const std::string& text, const std::string& why) {
    return failure(
        Exit::usage,
        fmt::format("'{}' is no intercept rule: {}; write PORT=LISTENPORT, 198.51.100.0/24:80=8080 or "
                    "[2001:db8::]/32:80=8080",
                    text, why));
}

template <class T> std::optional<T> number(std::string_view text, T least, T most) {
    T value{};
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || rest != text.data() + text.size() || value < least ||
        value > most)
        return {};
    return value;
}

// "198.51.100.0/24", "[2001:db8::]/32", "[2001:db8::/32]"; brackets are optional here.
std::optional<LocalPrefix> parse_prefix(std::string text) {
    std::erase_if(text, [](char c) { return c == '[' || c == ']'; });
    const std::size_t slash = text.find('/');
    const std::string address = text.substr(0, slash);
    LocalPrefix prefix;
    std::uint32_t most = 128;
    if (inet_pton(AF_INET, address.c_str(), prefix.address.data() + 12) == 1) {
        prefix.address[10] = prefix.address[11] = 0xff;
        most = 32;
    } else if (inet_pton(AF_INET6, address.c_str(), prefix.address.data()) != 1) {
        return {};
    }
    prefix.bits = most;
    if (slash != std::string::npos) {
        const auto bits = number<std::uint32_t>(std::string_view(text).substr(slash + 1), 0, most);
        if (!bits)
            return {};
        prefix.bits = *bits;
    }
    prefix.bits += 128 - most;
    return prefix;
}

// Whether no bit is set behind the prefix.
bool is_network(const LocalPrefix& prefix) {
    for (std::uint32_t bit = prefix.bits; bit < 128; ++bit)
        if (prefix.address[bit / 8] & (0x80U >> bit % 8))
            return false;
    return true;
}

} // namespace

Result<Intercept> parse_intercept(const std::string& text) {
    Intercept rule;
    rule.text = text;
    const std::size_t equals = text.rfind('=');
    if (equals == std::string::npos)
        return not_understood(text, "'=' and the listener's port are missing");
    const auto listen_port = number<std::uint16_t>(std::string_view(text).substr(equals + 1), 1, 65535);
    if (!listen_port)
        return not_understood(text, "what is behind '=' is no port");
    rule.listen_port = *listen_port;
    std::string left = text.substr(0, equals);
    const std::size_t colon = left.rfind(':');
    const auto port = number<std::uint16_t>(
        std::string_view(left).substr(colon == std::string::npos ? 0 : colon + 1), 1, 65535);
    if (!port)
        return not_understood(text, "there is no port before '='");
    rule.port = *port;
    if (colon == std::string::npos)
        return rule;
    left.resize(colon);
    if (left.find(':') != std::string::npos && left.find('[') == std::string::npos &&
        left.find('/') == std::string::npos)
        return not_understood(text, "an IPv6 address stands in brackets, or with its prefix length");
    const auto prefix = parse_prefix(left);
    if (!prefix)
        return not_understood(text, fmt::format("'{}' is no address", left));
    if (!is_network(*prefix))
        return not_understood(text, fmt::format("'{}' has bits set behind its prefix length", left));
    rule.prefix = *prefix;
    return rule;
}

namespace {

Result<std::vector<Intercept>> parse_list(const std::string& text) {
    std::vector<Intercept> rules;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        auto rule = parse_intercept(text.substr(begin, end - begin));
        if (!rule)
            return std::unexpected(rule.error());
        const auto same = std::ranges::find_if(rules, [&](const Intercept& other) {
            return other.prefix == rule->prefix && other.port == rule->port;
        });
        if (same != rules.end() && same->listen_port != rule->listen_port)
            return failure(Exit::usage,
                           fmt::format("the intercept rules {} and {} say different things of the same "
                                       "connections; leave one out",
                                       same->text, rule->text));
        if (same == rules.end())
            rules.push_back(std::move(*rule));
        begin = end + 1;
    }
    if (rules.size() > SYNGATE_INTERCEPTS_MAX)
        return failure(Exit::usage, fmt::format("{} intercept rules are too many, {} is the most",
                                                rules.size(), SYNGATE_INTERCEPTS_MAX));
    return rules;
}

} // namespace

Result<std::vector<Intercept>> parse_intercepts(const std::string& text) {
    auto rules = parse_list(text);
    if (!rules)
        return rules;
    for (const Intercept& rule : *rules)
        for (const Intercept& next : *rules)
            if (next.port == rule.listen_port && next.listen_port != rule.listen_port)
                return failure(Exit::usage,
                               fmt::format("the intercept rule {} leads to port {}, which {} intercepts; "
                                           "lead it to {} at once",
                                           rule.text, next.port, next.text, next.listen_port));
    return rules;
}

std::set<ListenAddress> intercepting_listeners(const std::vector<Listener>& listeners,
                                               const std::vector<Intercept>& rules) {
    std::set<ListenAddress> found;
    for (const Listener& listener : listeners) {
        if (!listener.transparent.value_or(true) ||
            std::ranges::find(rules, listener.port, &Intercept::listen_port) == rules.end())
            continue;
        const ListenAddress at = address_of(listener);
        found.insert(at);
        if (at.ipv6 && at.is_any() && !listener.ipv6_only)
            found.insert({.ipv6 = false, .address = {}, .port = at.port});
    }
    return found;
}

syngate_intercept_key key_of(const Intercept& rule) {
    syngate_intercept_key key{};
    key.prefix_len = 16 + rule.prefix.bits;
    key.port = rule.port;
    std::ranges::copy(rule.prefix.address, key.address);
    return key;
}

} // namespace syngate
