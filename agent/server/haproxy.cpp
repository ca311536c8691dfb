// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/haproxy.hpp"

#include "base/fd.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <optional>
#include <sys/socket.h>
#include <sys/un.h>

namespace syngate {
namespace {

namespace fs = std::filesystem;

struct Option {
    Argv words; // the option and its values
    [[nodiscard]] bool is(std::string_view flag) const { return words.front() == flag; }
    // HAProxy reads only the first letter of an option that takes a value.
    [[nodiscard]] bool starts(char letter) const {
        return words.front().size() > 1 && words.front()[0] == '-' && words.front()[1] == letter;
    }
    [[nodiscard]] bool passes_on() const { return is("-sf") || is("-st"); }
};

struct HaproxyLine {
    std::string program;
    std::vector<Option> options;
    Argv files; // after --
};

bool takes_value(const Option& option) {
    constexpr std::string_view letters = "CLNSfmnpx";
    return option.words.front().size() > 1 && letters.find(option.words.front()[1]) != letters.npos;
}

HaproxyLine parse_haproxy_line(const Argv& argv) {
    HaproxyLine line{.program = argv.front(), .options = {}, .files = {}};
    for (std::size_t i = 1; i < argv.size();) {
        if (argv[i] == "--") {
            line.files.assign(argv.begin() + static_cast<std::ptrdiff_t>(i) + 1, argv.end());
            break;
        }
        Option option{.words = {argv[i++]}};
        if (takes_value(option) && i < argv.size())
            option.words.push_back(argv[i++]);
        // Lists of pids, and -dt's optional value. A stray word is HAProxy's to complain about.
        while (i < argv.size() && !argv[i].starts_with("-"))
            option.words.push_back(argv[i++]);
        line.options.push_back(std::move(option));
    }
    return line;
}

// The added words come first, as HAProxy takes all that follows `--` for files.
template <class Keep> Argv build(const HaproxyLine& line, const Argv& added, Keep keep) {
    Argv argv{line.program};
    argv.insert(argv.end(), added.begin(), added.end());
    for (const auto& option : line.options)
        if (keep(option))
            argv.insert(argv.end(), option.words.begin(), option.words.end());
    if (!line.files.empty()) {
        argv.emplace_back("--");
        argv.insert(argv.end(), line.files.begin(), line.files.end());
    }
    return argv;
}

// HAProxy changes to -C's directory before it opens any of these.
fs::path start_directory(const HaproxyLine& line) {
    fs::path directory;
    for (const auto& option : line.options)
        if (option.starts('C') && option.words.size() > 1)
            directory = option.words[1];
    return directory;
}

// As they are written: files and directories.
Argv named_files(const HaproxyLine& line) {
    Argv named;
    for (const auto& option : line.options)
        if (option.starts('f') && option.words.size() > 1)
            named.push_back(option.words[1]);
    named.insert(named.end(), line.files.begin(), line.files.end());
    return named;
}

std::vector<fs::path> configuration_files(const HaproxyLine& line) {
    std::vector<fs::path> files;
    for (const auto& name : named_files(line)) {
        const fs::path path = start_directory(line) / name;
        std::error_code error;
        if (!fs::is_directory(path, error)) {
            files.push_back(path);
            continue;
        }
        std::vector<fs::path> inside;
        for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error))
            if (entry->path().extension() == ".cfg" && !entry->path().filename().string().starts_with("."))
                inside.push_back(entry->path());
        std::ranges::sort(inside);
        files.insert(files.end(), inside.begin(), inside.end());
    }
    return files;
}

bool is_name(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// $NAME or ${NAME} at line[at] == '$'; moves `at` behind it.
std::string expand(std::string_view line, std::size_t& at) {
    const bool braces = at + 1 < line.size() && line[at + 1] == '{';
    std::size_t end = at + (braces ? 2 : 1);
    const std::size_t begin = end;
    while (end < line.size() && is_name(line[end]))
        ++end;
    const std::string name(line.substr(begin, end - begin));
    at = braces ? std::min(line.find('}', end), line.size() - 1) + 1 : end;
    const char* value = std::getenv(name.c_str());
    return value ? value : "";
}

// The words of a configuration line: blanks separate, # comments, \ escapes, '...' is literal, in "..."
// variables of the environment are expanded.
Argv split_line(std::string_view line) {
    Argv words;
    std::optional<std::string> word;
    char quote = 0;
    for (std::size_t i = 0; i < line.size();) {
        const char c = line[i];
        if (!quote && (std::isspace(static_cast<unsigned char>(c)) || c == '#')) {
            if (word)
                words.push_back(*std::exchange(word, std::nullopt));
            if (c == '#')
                return words;
            ++i;
            continue;
        }
        if (!word)
            word.emplace();
        if (c == '\\' && quote != '\'' && i + 1 < line.size()) {
            *word += line[i + 1];
            i += 2;
        } else if (c == '$' && quote == '"') {
            *word += expand(line, i);
        } else if ((c == '"' || c == '\'') && (!quote || quote == c)) {
            quote = quote ? '\0' : c;
            ++i;
        } else {
            *word += c;
            ++i;
        }
    }
    if (word)
        words.push_back(*word);
    return words;
}

// PATH of `stats socket PATH ... expose-fd listeners ...`; empty for every other line.
std::string exposed_socket(std::string_view line) {
    const Argv words = split_line(line);
    if (words.size() < 5 || words[0] != "stats" || words[1] != "socket")
        return {};
    bool exposed = false;
    for (std::size_t i = 3; i + 1 < words.size(); ++i)
        exposed = exposed || (words[i] == "expose-fd" && words[i + 1] == "listeners");
    std::string_view path = words[2];
    if (path.starts_with("unix@"))
        path.remove_prefix(5);
    // Other families (ipv4@, abns@, fd@) cannot be given to -x, or not as a path.
    const bool is_path = path.find('@') == path.npos && path.find('/') != path.npos;
    return exposed && is_path ? std::string(path) : std::string();
}

// `source ... usesrc ...`, of a proxy or a server line, and `bind ... transparent`.
bool uses_foreign_addresses(std::string_view line) {
    const Argv words = split_line(line);
    if (words.empty())
        return false;
    const auto has = [&](const char* word) {
        return std::ranges::find(words.begin() + 1, words.end(), word) != words.end();
    };
    if (words.front() == "bind")
        return has("transparent");
    return has("usesrc") && (words.front() == "source" || words.front() == "server" ||
                             words.front() == "default-server" || words.front() == "server-template");
}

constexpr std::string_view sections[] = {
    "global",   "defaults", "listen",      "frontend", "backend",     "userlist",      "peers",
    "mailers",  "program",  "resolvers",   "cache",    "http-errors", "ring",          "log-forward",
    "fcgi-app", "traces",   "log-profile", "acme",     "crt-store",   "namespace_list"};

// Calls visit with the words of each line of a section `global`. A userlist has users and groups of its own.
template <class Visit> void for_each_global_line(const fs::path& file, Visit visit) {
    bool global = false;
    std::ifstream stream(file);
    for (std::string text; std::getline(stream, text);) {
        const Argv words = split_line(text);
        if (words.empty())
            continue;
        if (std::ranges::find(sections, words.front()) != std::end(sections))
            global = words.front() == "global";
        else if (global)
            visit(words);
    }
}

// Whether a line of any configuration file is so.
template <class Predicate> bool any_line(const HaproxyLine& line, Predicate is_so) {
    for (const auto& file : configuration_files(line)) {
        std::ifstream stream(file);
        for (std::string text; std::getline(stream, text);)
            if (is_so(text))
                return true;
    }
    return false;
}

bool somebody_listens(const fs::path& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string& name = path.native();
    if (name.size() >= sizeof address.sun_path)
        return false;
    std::ranges::copy(name, address.sun_path);
    const Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    // EAGAIN: its queue is full, so it is there.
    return fd && (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
                  errno == EAGAIN);
}

std::string find_exposed_socket(const HaproxyLine& line) {
    for (const auto& file : configuration_files(line)) {
        std::ifstream stream(file);
        for (std::string text; std::getline(stream, text);)
            if (const std::string path = exposed_socket(text);
                !path.empty() && somebody_listens(start_directory(line) / path))
                return path;
    }
    return {};
}

} // namespace

bool is_haproxy(std::string_view base_name) {
    if (!base_name.starts_with("haproxy"))
        return false;
    base_name.remove_prefix(7);
    return base_name.find_first_not_of("-_.0123456789") == base_name.npos;
}

Result<Recipe> haproxy_recipe(const Argv& server) {
    const HaproxyLine line = parse_haproxy_line(server);
    bool foreground = false;
    for (const auto& option : line.options) {
        if (option.passes_on())
            return failure(
                Exit::usage,
                fmt::format("'{}' must not be given to haproxy here: syngate itself replaces the old "
                            "process; leave it out",
                            option.words.front()));
        foreground = foreground || option.is("-db") || option.is("-d");
    }
    Recipe recipe;
    recipe.kind = "haproxy";
    // -db overrules `daemon` in the configuration but not -D on the command line; -W still has its master
    // and worker.
    const Argv stay = foreground ? Argv{} : Argv{"-db"};
    recipe.start = build(line, stay, [](const Option& option) { return !option.is("-D"); });
    // Without -q, which hides what is wrong.
    recipe.check = build(line, {"-c"}, [](const Option& option) {
        return !option.is("-D") && !option.is("-q") && !option.starts('p') && !option.starts('x');
    });
    recipe.reload = ReloadHow::overlap;
    recipe.release_signal = SIGUSR1;
    recipe.graceful = true;
    recipe.changes_user = haproxy_identity(server).user;
    recipe.transparent = any_line(line, uses_foreign_addresses);
    return recipe;
}

Argv haproxy_overlap_command(const Argv& start) {
    const HaproxyLine line = parse_haproxy_line(start);
    if (std::ranges::any_of(line.options, [](const Option& option) { return option.starts('x'); }))
        return start;
    const std::string socket = find_exposed_socket(line);
    if (socket.empty())
        return start;
    return build(line, {"-x", socket}, [](const Option&) { return true; });
}

Argv haproxy_files(const Argv& server) {
    return named_files(parse_haproxy_line(server));
}

bool haproxy_is_transparent(const Argv& server) {
    return any_line(parse_haproxy_line(server), uses_foreign_addresses);
}

HaproxyIdentity haproxy_identity(const Argv& server) {
    HaproxyIdentity identity;
    for (const auto& file : configuration_files(parse_haproxy_line(server)))
        for_each_global_line(file, [&](const Argv& words) {
            identity.user |= words.front() == "user" || words.front() == "uid";
            identity.group |= words.front() == "group" || words.front() == "gid";
        });
    return identity;
}

bool haproxy_serves(const Argv& server) {
    const HaproxyLine line = parse_haproxy_line(server);
    return std::ranges::none_of(line.options, [](const Option& option) {
        const std::string_view word = option.words.front();
        return option.starts('c') || option.starts('v') || option.starts('h') || word.starts_with("--") ||
               word.starts_with("-dC") || (word.starts_with("-dM") && word.find("help") != word.npos);
    });
}

} // namespace syngate
