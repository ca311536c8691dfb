// SPDX-License-Identifier: GPL-2.0-or-later
// Real servers for the live tests: their configurations, and how each is started in the foreground. All of
// them answer "GET / HTTP/1.0" with 200 on IPv4 and IPv6.
#pragma once

#include "netns/process.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace syngate::live {

using Ports = std::vector<std::uint16_t>;

// A file below scratch(), with missing directories made; returns its path. Replaces atomically by rename, as
// an editor or a deployment would.
std::string write_file(const std::string& name, std::string_view text);
std::string read_file(const std::string& path); // throws if it cannot be read

struct HaproxyConfig {
    Ports ports = {8080};
    std::string body = "ok\n";     // answered by HAProxy itself, if there is no backend
    std::string backend = {};      // "10.77.0.1:9000"; mode tcp
    std::string bind_options = {}; // of each bind line
    std::string global = {};       // more lines, each with its newline
    std::string frontend = {};
    std::string backend_lines = {}; // such as "    source 0.0.0.0 usesrc clientip\n"
};
std::string haproxy_config(const HaproxyConfig& config = {});
// In the foreground without a master: SIGUSR1 lets it finish, SIGTERM ends it at once.
Argv haproxy_argv(const std::string& config_path);
// The same of "haproxy.cfg", which it writes.
Argv haproxy(const HaproxyConfig& config = {});

struct NginxConfig {
    Ports ports = {8080};
    std::string body = "ok\n";
    std::string listen_options = {}; // such as "reuseport"
    int workers = 1;
    std::string prefix = "nginx"; // directory below scratch() for its temporary files and pid file
};
std::string nginx_config(const NginxConfig& config = {});
Argv nginx_argv(const std::string& config_path);

// Serves one small file from a directory below scratch(), which it makes.
Argv python_argv(std::uint16_t port);

// Starts it and waits until all ports listen; throws with its output if they do not.
Process start_server(const Argv& argv, const Ports& ports, const SpawnOptions& options = {});

} // namespace syngate::live
