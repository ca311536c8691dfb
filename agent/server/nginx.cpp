// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/nginx.hpp"

#include <array>
#include <cctype>
#include <csignal>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <glob.h>
#include <optional>
#include <sstream>

namespace syngate {
namespace {

namespace fs = std::filesystem;

struct NginxLine {
    std::string configuration; // -c
    std::string prefix;        // -p
    std::string signal;        // -s
    // The last -g, the only one that nginx obeys: which argument, and where in it the directives begin.
    std::optional<std::pair<std::size_t, std::size_t>> directives;
};

// Letters can be joined, and a value follows in the same argument or is the next one: `-tg 'daemon off;'`.
NginxLine parse_nginx_line(const Argv& argv) {
    NginxLine line;
    for (std::size_t i = 1; i < argv.size(); ++i) {
        if (!argv[i].starts_with("-"))
            continue;
        for (std::size_t at = 1; at < argv[i].size(); ++at) {
            const char letter = argv[i][at];
            if (std::string_view("pcges").find(letter) == std::string_view::npos)
                continue;
            ++at;
            if (at == argv[i].size()) {
                if (i + 1 == argv.size())
                    return line;
                ++i;
                at = 0;
            }
            const std::string value = argv[i].substr(at);
            if (letter == 'p')
                line.prefix = value;
            else if (letter == 'c')
                line.configuration = value;
            else if (letter == 's')
                line.signal = value;
            else if (letter == 'g')
                line.directives = {i, at};
            break;
        }
    }
    return line;
}

// nginx's built-in places differ between distributions; `nginx -V` would tell, but it takes a process.
fs::path configuration_file(const NginxLine& line) {
    constexpr std::array prefixes = {"/usr/share/nginx", "/etc/nginx", "/usr/local/nginx"};
    std::vector<fs::path> candidates;
    if (line.configuration.empty())
        candidates = {"/etc/nginx/nginx.conf", fs::path(line.prefix) / "conf/nginx.conf",
                      "/usr/local/nginx/conf/nginx.conf"};
    else if (!line.prefix.empty() || line.configuration.starts_with("/"))
        candidates = {fs::path(line.prefix) / line.configuration};
    else
        for (const char* prefix : prefixes)
            candidates.push_back(fs::path(prefix) / line.configuration);
    for (const auto& candidate : candidates) {
        std::error_code error;
        if (fs::exists(candidate, error))
            return candidate;
    }
    return candidates.front();
}

// Calls visit with the words of each simple directive (one that ends in ';') outside all blocks.
template <class Visit> void for_each_directive(std::string_view text, Visit visit) {
    Argv words;
    std::string word;
    int depth = 0;
    const auto end_word = [&] {
        if (!word.empty())
            words.push_back(std::exchange(word, {}));
    };
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '#' && word.empty()) {
            i = std::min(text.find('\n', i), text.size());
        } else if ((c == '"' || c == '\'') && word.empty()) {
            for (++i; i < text.size() && text[i] != c; ++i)
                word += text[i];
            end_word();
        } else if (std::isspace(static_cast<unsigned char>(c))) {
            end_word();
        } else if (c == ';' || c == '{' || c == '}') {
            end_word();
            if (c == ';' && depth == 0 && !words.empty())
                visit(words);
            words.clear();
            depth += c == '{' ? 1 : c == '}' ? -1 : 0;
        } else {
            word += c;
        }
    }
}

Argv files_matching(const std::string& pattern) {
    Argv files;
    glob_t found{};
    if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
        for (std::size_t i = 0; i < found.gl_pathc; ++i)
            files.emplace_back(found.gl_pathv[i]);
    globfree(&found);
    return files;
}

constexpr int include_depth = 8; // a file that includes itself is nginx's to complain about

struct Setting {
    std::string value; // "on", "off"; empty: not set
    std::string where;
};

Setting setting_in_file(std::string_view name, const fs::path& file, const fs::path& directory, int depth);

Setting setting_in_text(std::string_view name, std::string_view text, const std::string& where,
                        const fs::path& directory, int depth) {
    Setting setting;
    for_each_directive(text, [&](const Argv& words) {
        if (words.size() != 2 || !setting.value.empty())
            return;
        if (words[0] == name)
            setting = {words[1], where};
        else if (words[0] == "include" && depth < include_depth)
            for (const auto& file : files_matching(directory / words[1]))
                if (setting.value.empty())
                    setting = setting_in_file(name, file, directory, depth + 1);
    });
    return setting;
}

Setting setting_in_file(std::string_view name, const fs::path& file, const fs::path& directory, int depth) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return setting_in_text(name, text.str(), file, directory, depth);
}

// In the main context, of the command line and the configuration.
Setting find_setting(std::string_view name, const Argv& server, const NginxLine& line) {
    const fs::path file = configuration_file(line);
    Setting setting;
    if (line.directives)
        setting = setting_in_text(name, server[line.directives->first].substr(line.directives->second), "-g",
                                  file.parent_path(), 0);
    return setting.value.empty() ? setting_in_file(name, file, file.parent_path(), 0) : setting;
}

} // namespace

bool is_nginx(std::string_view base_name) {
    if (!base_name.starts_with("nginx"))
        return false;
    base_name.remove_prefix(5);
    return base_name == "-debug" || base_name.find_first_not_of("-_.0123456789") == base_name.npos;
}

Result<Recipe> nginx_recipe(const Argv& server) {
    const NginxLine line = parse_nginx_line(server);
    if (!line.signal.empty())
        return failure(Exit::usage,
                       fmt::format("'nginx -s {}' only signals a running nginx; give the command that "
                                   "starts the server",
                                   line.signal));
    const Setting daemon = find_setting("daemon", server, line);
    if (daemon.value == "on")
        return failure(Exit::usage,
                       fmt::format("nginx would leave for the background: 'daemon on' in {}; remove "
                                   "it, syngate needs nginx in the foreground",
                                   daemon.where));
    Recipe recipe;
    recipe.kind = "nginx";
    recipe.start = server;
    if (daemon.value.empty() && line.directives) {
        // In front: a missing ';' at the user's end stays an error of its own.
        const auto [argument, at] = *line.directives;
        recipe.start[argument].insert(at, "daemon off; ");
    } else if (daemon.value.empty()) {
        recipe.start.insert(recipe.start.end(), {"-g", "daemon off;"});
    }
    recipe.check = recipe.start;
    recipe.check.insert(recipe.check.begin() + 1, "-t");
    recipe.reload = ReloadHow::signal;
    recipe.reload_signal = SIGHUP;
    recipe.stays_up = true; // old workers go when the new ones are there
    recipe.release_signal = SIGQUIT;
    recipe.graceful = true;
    recipe.uses_bpf = find_setting("quic_bpf", server, line).value == "on";
    return recipe;
}

} // namespace syngate
