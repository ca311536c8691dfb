// SPDX-License-Identifier: GPL-2.0-or-later
#include "netns/servers.hpp"

#include "netns/internal.hpp"
#include "netns/sandbox.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace syngate::live {

namespace {

// As HAProxy and nginx read it between double quotes.
std::string as_config_string(std::string_view text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '\n')
            result += "\\n";
        else if (c == '"' || c == '\\')
            (result += '\\') += c;
        else
            result += c;
    }
    return result + '"';
}

} // namespace

std::string write_file(const std::string& name, std::string_view text) {
    const auto path = scratch() + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    const auto fresh = path + ".new";
    std::ofstream(fresh) << text;
    if (std::rename(fresh.c_str(), path.c_str()) != 0)
        fail("cannot write " + path);
    return path;
}

std::string read_file(const std::string& path) {
    const std::ifstream file(path);
    if (!file)
        fail("cannot read " + path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::string haproxy_config(const HaproxyConfig& config) {
    std::string text = "global\n" + config.global;
    text += fmt::format("defaults\n"
                        "    mode {}\n"
                        "    timeout connect 5s\n"
                        "    timeout client 30s\n"
                        "    timeout server 30s\n"
                        "frontend test\n",
                        config.backend.empty() ? "http" : "tcp");
    for (const auto port : config.ports)
        text += fmt::format("    bind 0.0.0.0:{0} {1}\n    bind [::]:{0} v6only {1}\n", port,
                            config.bind_options);
    text += config.frontend;
    if (config.backend.empty())
        return text + fmt::format("    http-request return status 200 content-type text/plain string {}\n",
                                  as_config_string(config.body));
    return text + fmt::format("    default_backend servers\n"
                              "backend servers\n"
                              "{}"
                              "    server one {}\n",
                              config.backend_lines, config.backend);
}

Argv haproxy_argv(const std::string& config_path) {
    return {"haproxy", "-db", "-f", config_path};
}

Argv haproxy(const HaproxyConfig& config) {
    return haproxy_argv(write_file("haproxy.cfg", haproxy_config(config)));
}

std::string nginx_config(const NginxConfig& config) {
    const auto prefix = scratch() + "/" + config.prefix;
    std::filesystem::create_directories(prefix);
    std::string text = fmt::format("daemon off;\n"
                                   "user root;\n"
                                   "worker_processes {};\n"
                                   "pid {}/nginx.pid;\n"
                                   "error_log stderr;\n"
                                   "events {{ worker_connections 8192; }}\n"
                                   "http {{\n"
                                   "    access_log off;\n",
                                   config.workers, prefix);
    for (const char* kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"})
        text += fmt::format("    {0}_temp_path {1}/{0};\n", kind, prefix);
    text += "    server {\n";
    for (const auto port : config.ports)
        text += fmt::format("        listen {0} {1};\n        listen [::]:{0} ipv6only=on {1};\n", port,
                            config.listen_options);
    return text + fmt::format("        location / {{ return 200 {}; }}\n    }}\n}}\n",
                              as_config_string(config.body));
}

Argv nginx_argv(const std::string& config_path) {
    return {"nginx", "-e", "stderr", "-c", config_path};
}

Argv python_argv(std::uint16_t port) {
    const auto index = write_file(fmt::format("www-{}/index.html", port), "ok\n");
    return {"python3",
            "-m",
            "http.server",
            "--bind",
            "::",
            "--directory",
            std::filesystem::path(index).parent_path().string(),
            std::to_string(port)};
}

Process start_server(const Argv& argv, const Ports& ports, const SpawnOptions& options) {
    Process process(argv, options);
    const auto up = [&] {
        return std::ranges::all_of(ports, [&](auto port) {
            return options.where != nullptr ? listens(port, *options.where) : listens(port);
        });
    };
    bool listening = false;
    wait_until([&] { return (listening = up()) || !process.runs(); });
    if (!listening || !process.runs())
        throw std::runtime_error(
            fmt::format("{} does not listen\n{}{}", fmt::join(argv, " "), process.out(), process.err()));
    return process;
}

} // namespace syngate::live
