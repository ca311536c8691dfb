// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/recipe.hpp"

#include "server/haproxy.hpp"
#include "server/nginx.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <csignal>
#include <fmt/format.h>
#include <optional>

namespace syngate {
namespace {

std::string_view base_name(std::string_view program) {
    return program.substr(program.rfind('/') + 1); // npos + 1 is 0
}

Result<Recipe> recipe_of_kind(const Argv& server) {
    const std::string_view program = base_name(server.front());
    if (is_haproxy(program))
        return haproxy_recipe(server);
    if (is_nginx(program))
        return nginx_recipe(server);
    Recipe recipe;
    recipe.kind = "other";
    recipe.start = server;
    recipe.reload = ReloadHow::restart;
    recipe.release_signal = SIGTERM;
    return recipe;
}

// Blanks separate, '...' and "..." hold together; nothing else is special, as no shell is in between.
Result<Argv> split_command(const std::string& text) {
    Argv words;
    std::optional<std::string> word;
    char quote = 0;
    for (const char c : text) {
        if (!quote && std::isspace(static_cast<unsigned char>(c))) {
            if (word)
                words.push_back(*std::exchange(word, std::nullopt));
            continue;
        }
        if (!word)
            word.emplace();
        if (quote == c)
            quote = 0;
        else if (!quote && (c == '"' || c == '\''))
            quote = c;
        else
            *word += c;
    }
    if (quote)
        return failure(Exit::usage, fmt::format("the check command has an open quote: {}; close it", text));
    if (word)
        words.push_back(*word);
    if (words.empty() || words.front().empty())
        return failure(Exit::usage, fmt::format("the check command '{}' names no program", text));
    return words;
}

Result<> apply_reload(Recipe& recipe, const std::string& reload) {
    constexpr std::string_view signal_prefix = "signal=";
    if (reload.empty())
        return {};
    recipe.reload_signal = 0;
    recipe.stays_up = false;
    if (reload == "overlap") {
        recipe.reload = ReloadHow::overlap;
    } else if (reload == "restart") {
        recipe.reload = ReloadHow::restart;
    } else if (reload.starts_with(signal_prefix)) {
        const auto signal = parse_signal(reload.substr(signal_prefix.size()));
        if (!signal)
            return std::unexpected(signal.error());
        recipe.reload = ReloadHow::signal;
        recipe.reload_signal = *signal;
    } else {
        return failure(Exit::usage,
                       fmt::format("'{}' is no way to reload: write overlap, restart or signal=HUP", reload));
    }
    return {};
}

} // namespace

Result<Recipe> make_recipe(const Argv& server, const RecipeOptions& options) {
    if (server.empty() || server.front().empty())
        return failure(Exit::usage, "no server given; give its command after --");
    auto recipe = recipe_of_kind(server);
    if (!recipe)
        return recipe;
    if (const auto applied = apply_reload(*recipe, options.reload); !applied)
        return std::unexpected(applied.error());
    if (!options.check.empty()) {
        auto check = split_command(options.check);
        if (!check)
            return std::unexpected(check.error());
        recipe->check = std::move(*check);
    }
    if (!options.stop_signal.empty()) {
        const auto signal = parse_signal(options.stop_signal);
        if (!signal)
            return std::unexpected(signal.error());
        // Only the kind's own signal is known to be a gentle one.
        recipe->graceful = recipe->graceful && *signal == recipe->release_signal;
        recipe->release_signal = *signal;
    }
    return recipe;
}

Argv overlap_command(const Recipe& recipe) {
    return recipe.kind == "haproxy" ? haproxy_overlap_command(recipe.start) : recipe.start;
}

Result<int> parse_signal(const std::string& name) {
    std::string upper = name;
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return std::toupper(c); });
    int number = 0;
    const auto [rest, error] = std::from_chars(upper.data(), upper.data() + upper.size(), number);
    if (error == std::errc{} && rest == upper.data() + upper.size() && number >= 1 && number <= SIGRTMAX)
        return number;
    const std::string_view bare = std::string_view(upper).substr(upper.starts_with("SIG") ? 3 : 0);
    for (number = 1; number <= SIGRTMAX; ++number)
        if (const char* known = sigabbrev_np(number); known && bare == known)
            return number;
    return failure(
        Exit::usage,
        fmt::format("'{}' is no signal: write a name or number that kill(1) knows, such as HUP", name));
}

} // namespace syngate
