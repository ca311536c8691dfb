// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/options.hpp"

#include "gate/pins.hpp"
#include "server/haproxy_image.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <map>
#include <tuple>

namespace syngate {
namespace {

constexpr std::string_view entrypoint = "entrypoint";
constexpr std::size_t park_memory_min = 4096;
constexpr std::size_t park_memory_max = 1U << 30;

std::string environment_name(std::string option) {
    std::string name = "SYNGATE_";
    for (const char c : option.substr(2))
        name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return name;
}

template <class T, class Parse>
CLI::Option* add(CLI::App* app, const std::string& name, T& target, const std::string& help, Parse parse) {
    return app
        ->add_option_function<std::string>(
            name,
            [&target, name, parse](const std::string& text) {
                const auto value = parse(text);
                if (!value)
                    throw CLI::ValidationError(name, value.error().message);
                target = *value;
            },
            help)
        ->envname(environment_name(name));
}

void add_text(CLI::App* app, const std::string& name, std::string& target, const std::string& help) {
    app->add_option(name, target, help)->envname(environment_name(name))->capture_default_str();
}

Result<Duration> longer_than_zero(const std::string& text) {
    const auto value = parse_duration(text);
    if (value && *value == Duration::zero())
        return failure(Exit::usage, "must be longer than 0");
    return value;
}

void add_duration(CLI::App* app, const std::string& name, Duration& target, const std::string& help,
                  bool may_be_zero = false) {
    add(app, name, target, fmt::format("{} [{}]", help, format_duration(target)),
        [may_be_zero](const std::string& text) {
            return may_be_zero ? parse_duration(text) : longer_than_zero(text);
        })
        ->type_name("TIME");
}

template <class T> auto one_of(std::map<std::string, T> choices) {
    return [choices = std::move(choices)](const std::string& text) -> Result<T> {
        if (const auto it = choices.find(text); it != choices.end())
            return it->second;
        std::string known;
        for (const auto& [name, value] : choices)
            known += (known.empty() ? "" : ", ") + name;
        return failure(Exit::usage, fmt::format("'{}' is none of: {}", text, known));
    };
}

Result<PortSet> ports_or_auto(const std::string& text) {
    return text == "auto" ? PortSet{} : parse_ports(text);
}

Result<std::size_t> parse_size(const std::string& text) {
    std::string digits = text;
    std::size_t bytes = 0;
    bool scaled = false;
    try {
        scaled = CLI::AsSizeValue(false)(digits).empty(); // turns 4MiB into 4194304
    } catch (const CLI::ParseError&) { // of a number that does not fit, from version 2.4 on
    }
    if (!scaled || !CLI::detail::lexical_cast(digits, bytes))
        return failure(Exit::usage, fmt::format("'{}' is no size: write 65536, 64k or 4MiB", text));
    if (bytes < park_memory_min || bytes > park_memory_max)
        return failure(Exit::usage, fmt::format("{} is not between 4 KiB and 1 GiB", text));
    return bytes;
}

const auto policy_choices = one_of<std::pair<Flip, Policy>>({{"auto", {Flip::automatic, Policy::hold}},
                                                             {"flip", {Flip::always, Policy::hold}},
                                                             {"hold", {Flip::never, Policy::hold}},
                                                             {"drop", {Flip::never, Policy::drop}}});

void add_common(CLI::App* app, Options& o) {
    add_text(app, "--log-level", o.log_level, "trace, debug, info, warning or error");
    app->get_option("--log-level")->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}));
}

void add_runtime_dir(CLI::App* app, Options& o) {
    add_text(app, "--runtime-dir", o.gate.runtime_dir, "Directory for control sockets");
}

void add_control(CLI::App* app, Options& o) {
    add_text(app, "--control", o.control,
             "Path of the agent's control socket [found by the network namespace]");
    add_runtime_dir(app, o);
}

void add_mode(CLI::App* app, GateOptions& g) {
    add(app, "--mode", g.mode,
        "Who does it: bpf, iptables, or auto: BPF where it is possible, else iptables [auto]",
        one_of<Mode>({{"auto", Mode::automatic}, {"bpf", Mode::bpf}, {"iptables", Mode::iptables}}));
}

void add_gate(CLI::App* app, Options& o) {
    GateOptions& g = o.gate;
    add(app, "--ports", g.ports, "TCP ports: 80,443,8000-8010, or auto: where the server listens [auto]",
        [&o](const std::string& text) {
            o.ports_text = text;
            return ports_or_auto(text);
        });
    add(app, "--policy", g.policy,
        "What becomes of new connections meanwhile: flip (run only: steered to the new server, no gate is "
        "closed), hold (kept at the closed gate, replayed when it opens), drop (dropped there, the client "
        "tries again after 1 s), auto: flip where server and kernel allow it, else hold [auto]",
        [&g](const std::string& text) -> Result<Policy> {
            const auto choice = policy_choices(text);
            if (!choice)
                return std::unexpected(choice.error());
            g.flip = choice->first;
            return choice->second;
        });
    add_mode(app, g);
    add(app, "--hook", g.hook, "Where the BPF program sits: tcx, tc, xdp, or auto: tcx, else tc [auto]",
        one_of<Hook>({{"auto", Hook::automatic}, {"tcx", Hook::tcx}, {"tc", Hook::tc}, {"xdp", Hook::xdp}}));
    add(app, "--lease", g.lease,
        fmt::format("A closed gate opens by itself after this time unless the agent renews it [{}]",
                    format_duration(g.lease)),
        [&o](const std::string& text) -> Result<Duration> {
            o.lease_text = text;
            return longer_than_zero(text);
        })
        ->type_name("TIME");
    add_duration(app, "--max-window", g.max_window, "The longest that the gate stays closed in any case");
    add(app, "--park-memory", g.park_memory, "Memory for held SYNs; when it is full, SYNs are dropped [4MiB]",
        parse_size);
    add_text(app, "--bpffs", g.bpffs, "Directory for pinned maps");
    add_duration(app, "--handshake-timeout", g.handshake_timeout,
                 "Half-open connections older than this are not waited for");
}

Result<std::uint32_t> parse_number(const std::string& text) {
    std::uint32_t value = 0;
    const bool hex = text.starts_with("0x") || text.starts_with("0X");
    const char* begin = text.data() + (hex ? 2 : 0);
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(begin, end, value, hex ? 16 : 10);
    if (begin == end || error != std::errc{} || rest != end)
        return failure(Exit::usage, fmt::format("'{}' is no number from 0 to {}", text, UINT32_MAX));
    return value;
}

// MARK or MARK/MASK, each decimal or 0x...; a mark alone is its own mask.
Result<std::pair<std::uint32_t, std::uint32_t>> parse_mark(const std::string& text) {
    const std::size_t slash = text.find('/');
    const auto mark = parse_number(text.substr(0, slash));
    const auto mask = slash == std::string::npos ? mark : parse_number(text.substr(slash + 1));
    if (!mark || !mask)
        return std::unexpected((mark ? mask : mark).error());
    return std::pair(*mark, *mask);
}

void add_transparent(CLI::App* app, Options& o) {
    using Wish = TransparentOptions::Wish;
    TransparentOptions& t = o.transparent;
    add(app, "--transparent", t.wish,
        "Route what belongs to connections with foreign addresses to this host: on, off, or auto: if "
        "HAProxy's configuration uses usesrc or a transparent bind [auto]",
        one_of<Wish>({{"auto", Wish::automatic}, {"on", Wish::on}, {"off", Wish::off}}));
    app->add_option_function<std::vector<std::string>>(
           "--intercept",
           [&t](const std::vector<std::string>& texts) {
               const auto rules = parse_intercepts(fmt::format("{}", fmt::join(texts, ",")));
               if (!rules)
                   throw CLI::ValidationError("--intercept", rules.error().message);
               t.intercepts = *rules;
           },
           "[ADDR/PREFIX:]PORT=LISTENPORT: connections to foreign addresses go to a local transparent "
           "listener; may be given again")
        ->envname(environment_name("--intercept"))
        ->delimiter(',');
    app->add_option_function<std::string>(
           "--mark",
           [&t](const std::string& text) {
               const auto mark = parse_mark(text);
               if (!mark)
                   throw CLI::ValidationError("--mark", mark.error().message);
               std::tie(t.route.mark, t.route.mask) = *mark;
           },
           fmt::format("MARK[/MASK] of packets that are routed to this host [{:#x}]", t.route.mark))
        ->envname(environment_name("--mark"));
    add(app, "--table", t.route.table, fmt::format("Routing table for marked packets [{}]", t.route.table),
        parse_number);
    add(app, "--rule-priority", t.route.priority,
        fmt::format("Priority of the routing rule on the mark [{}]", t.route.priority), parse_number);
}

void add_run(CLI::App& app, Options& o) {
    CLI::App* run =
        app.add_subcommand("run", "Run a server in the foreground: run [OPTIONS] -- SERVER ARGS...");
    add_common(run, o);
    add_control(run, o);
    add_gate(run, o);
    add_text(run, "--reload", o.reload,
             "overlap (new beside old), signal=NAME (the server reloads itself) or restart "
             "[haproxy: overlap, nginx: signal=HUP, others: restart]");
    add_text(run, "--check", o.check,
             "Command that checks the configuration [haproxy -c, nginx -t, others: none]");
    add_text(run, "--stop-signal", o.stop_signal,
             "Signal that ends the server gracefully [haproxy: USR1, nginx: QUIT, others: TERM]");
    run->add_option("--watch", o.watch, "Files and directories; a change in them reloads")
        ->envname("SYNGATE_WATCH")
        ->delimiter(':');
    add_duration(run, "--stop-timeout", o.stop_timeout, "From SIGTERM or SIGINT to SIGKILL for the server");
    add_duration(run, "--start-timeout", o.start_timeout, "Until a started server listens");
    add_duration(run, "--swap-timeout", o.swap_timeout,
                 "Until the old server has closed its listening sockets");
    add_duration(run, "--end-timeout", o.end_timeout, "Until a server that is restarted has ended by itself");
    add_duration(
        run, "--finish-timeout", o.finish_timeout,
        "Before a server that cannot finish gracefully is stopped: wait this long for open connections",
        true);
    add(run, "--flip-ports", o.flip_ports,
        "With --policy flip, for a server that cannot listen beside its predecessor: two ports, A,B, of "
        "which each "
        "generation finds one in SYNGATE_PORT and as {SYNGATE_PORT} in its arguments [two free ones]",
        [](const std::string& text) -> Result<PortSet> {
            auto ports = parse_ports(text);
            if (ports && ports->size() != 2)
                return failure(Exit::usage, fmt::format("'{}' is not two ports", text));
            return ports;
        });
    add_duration(run, "--settle", o.settle,
                 "A server that reloads itself and shows no change for this long has reloaded");
    add_text(run, "--pid-file", o.pid_file, "File for the number of the server's process [none]");
    add_duration(run, "--wait-for-ports", o.wait_for_ports,
                 "Wait this long for another agent that gives the ports up", true);
    add_transparent(run, o);
}

void add_exec(CLI::App& app, Options& o) {
    CLI::App* exec = app.add_subcommand(
        "exec",
        "Run a command that replaces a server, behind the gate: exec --ports LIST [OPTIONS] -- CMD ARGS...");
    add_common(exec, o);
    add_control(exec, o);
    add_gate(exec, o);
    add_duration(exec, "--wait-timeout", o.wait_timeout, "After the command, until the ports listen again");
    add_duration(exec, "--settle", o.exec_settle,
                 "After the command, while sockets of before it still listen and nothing changes");
    exec->add_flag("--json", o.json, "Print what happened as JSON on standard output")
        ->envname("SYNGATE_JSON");
}

void add_client(CLI::App& app, Options& o, const char* verb, const char* help) {
    CLI::App* sub = app.add_subcommand(verb, help);
    add_common(sub, o);
    add_control(sub, o);
    sub->add_flag("--json", o.json, "Print the answer as JSON")->envname("SYNGATE_JSON");
}

Result<PortFlips> parse_flips(const std::vector<std::string>& words) {
    PortFlips flips;
    for (const std::string& word : words) {
        const auto equals = word.find('=');
        const auto port = parse_ports(word.substr(0, equals));
        const auto target = parse_ports(equals == word.npos ? "" : word.substr(equals + 1));
        if (!port || !target || port->size() != 1 || target->size() != 1)
            return failure(Exit::usage, fmt::format("'{}' is no flip: write 80=8081", word));
        if (!flips.emplace(*port->begin(), *target->begin()).second)
            return failure(Exit::usage, fmt::format("port {} is flipped twice", *port->begin()));
    }
    return flips;
}

Result<void> judge_flip(Options& o) {
    if (!o.clear) {
        const auto flips = parse_flips(o.flip_words);
        if (!flips)
            return std::unexpected(flips.error());
        if (flips->empty())
            return failure(Exit::usage, "`syngate flip` takes what to flip: syngate flip 80=8081");
        o.flips = *flips;
        for (const auto& [port, target] : o.flips)
            o.gate.ports.insert(port);
        return {};
    }
    for (const std::string& word : o.flip_words) {
        const auto ports = parse_ports(word);
        if (!ports)
            return std::unexpected(ports.error());
        o.cleared.insert(ports->begin(), ports->end());
    }
    return {};
}

void add_flip(CLI::App& app, Options& o) {
    CLI::App* flip = app.add_subcommand(
        "flip", "Steer a local port to another port's listeners: flip 80=8081, and back: flip --clear [80]");
    add_common(flip, o);
    add_control(flip, o);
    flip->add_option("flips", o.flip_words, "PORT=PORT, or with --clear the ports, none for all");
    flip->add_flag("--clear", o.clear, "The kernel's own rules again");
    add_mode(flip, o.gate);
    add_duration(flip, "--lease", o.gate.lease,
                 "In mode iptables, a flip ends three times this after its agent's death");
    add_text(flip, "--bpffs", o.gate.bpffs, "Directory for pinned maps");
    flip->add_flag("--json", o.json, "Print the answer as JSON")->envname("SYNGATE_JSON");
}

void add_verbs(CLI::App& app, Options& o) {
    app.set_version_flag("--version", "syngate " SYNGATE_VERSION);
    app.require_subcommand(1);
    app.footer(
        "Every option has an environment variable: --stop-timeout is SYNGATE_STOP_TIMEOUT. "
        "SYNGATE_NO_FEATURE=tcx,ringbuf switches features off that `syngate probe` lists.\n"
        "Exit status: 0 ok, 1 failed, 2 bad input, 3 not possible here, 4 busy; run and exec exit with the "
        "command's own status.");
    add_run(app, o);
    add_exec(app, o);
    add_client(app, o, "reload", "Reload the server that `syngate run` runs, and wait for the outcome");
    add_client(app, o, "restart", "Stop and start that server behind the gate, and wait for the outcome");
    add_client(app, o, "status", "Show what the agent of this network namespace does");
    CLI::App* close =
        app.add_subcommand("close", "Close the gate by hand until `open`, or until the lease ends");
    add_common(close, o);
    add_control(close, o);
    add_gate(close, o);
    close->add_flag("--json", o.json, "Print the answer as JSON")->envname("SYNGATE_JSON");
    add_client(app, o, "open", "Open a gate that was closed by hand");
    add_flip(app, o);
    CLI::App* probe = app.add_subcommand("probe", "Show what this kernel and these capabilities allow");
    add_common(probe, o);
    add_text(probe, "--bpffs", o.gate.bpffs, "Directory for pinned maps");
    probe->add_flag("--json", o.json, "Print as JSON")->envname("SYNGATE_JSON");
    CLI::App* cleanup = app.add_subcommand("cleanup", "Remove what agents that were killed have left behind");
    add_common(cleanup, o);
    add_text(cleanup, "--bpffs", o.gate.bpffs, "Directory for pinned maps");
    add_runtime_dir(cleanup, o);
    app.add_subcommand(std::string(entrypoint),
                       "What the container image runs: HAProxy under `run`, or the command that is given");
}

// CLI11 asks the environment for the options of every subcommand, used or not. Those of the others would
// overwrite what the command line says, as they have the same targets.
void forget_environment_of_others(CLI::App& app, const std::string& verb) {
    for (CLI::App* sub : app.get_subcommands([&](const CLI::App* each) { return each->get_name() != verb; }))
        for (CLI::Option* option : sub->get_options())
            option->envname("");
}

Result<void> judge(Options& o) {
    const char* haproxy_ports = std::getenv("HAPROXY_PORTS");
    if (o.verb == "run" && o.ports_text.empty() && haproxy_ports && *haproxy_ports) {
        const auto ports = ports_or_auto(haproxy_ports);
        if (!ports)
            return failure(Exit::usage, "HAPROXY_PORTS: " + ports.error().message);
        o.gate.ports = *ports;
    }
    if (const auto r = check_options(o.transparent.route); !r)
        return r;
    if (o.transparent.wish == TransparentOptions::Wish::off && !o.transparent.intercepts.empty())
        return failure(Exit::usage, "--intercept needs transparent proxying: leave --transparent off out");
    if (o.gate.lease > o.gate.max_window)
        return failure(Exit::usage,
                       fmt::format("--lease {} is longer than --max-window {}", format_duration(o.gate.lease),
                                   format_duration(o.gate.max_window)));
    const bool takes_command = o.verb == "run" || o.verb == "exec";
    if (takes_command && o.command.empty())
        return failure(Exit::usage,
                       fmt::format("`syngate {}` takes a command: write it behind --, as in syngate {} -- {}",
                                   o.verb, o.verb,
                                   o.verb == "run" ? "haproxy -f haproxy.cfg" : "systemctl restart nginx"));
    if (!takes_command && !o.command.empty())
        return failure(Exit::usage, fmt::format("`syngate {}` takes no command", o.verb));
    if (o.verb == "flip")
        return judge_flip(o);
    if (o.verb == "exec" && o.gate.ports.empty())
        return failure(Exit::usage, "`syngate exec` must know the ports: --ports 80,443");
    return {};
}

// Every argument is HAProxy's or a command's, so none is looked at here.
Result<Options> parse_entrypoint(int argc, const char* const* argv) {
    ImageCommand command = image_command(Argv(argv + 2, argv + argc));
    if (!command.supervised) {
        Options options;
        options.verb = entrypoint;
        options.command = std::move(command.argv);
        return options;
    }
    std::vector<const char*> run{argv[0], "run", "--"};
    for (const std::string& word : command.argv)
        run.push_back(word.c_str());
    auto options = parse_options(static_cast<int>(run.size()), run.data());
    if (options)
        options->warning = command.warning;
    return options;
}

} // namespace

Result<Options> parse_options(int argc, const char* const* argv) {
    if (argc > 1 && argv[1] == entrypoint)
        return parse_entrypoint(argc, argv);
    Options options;
    options.gate.bpffs = default_pin_base;
    options.gate.runtime_dir = "/run/syngate";
    CLI::App app("Restart or reload any TCP server, and no client notices.", "syngate");
    add_verbs(app, options);

    // What stands behind -- is the command's, untouched.
    int ours = 0;
    while (ours < argc && std::string_view(argv[ours]) != "--")
        ++ours;
    for (int i = ours + 1; i < argc; ++i)
        options.command.emplace_back(argv[i]);
    const std::string first = ours > 1 ? argv[1] : "";
    const bool known =
        !app.get_subcommands([&](const CLI::App* each) { return each->get_name() == first; }).empty();
    if (!known && !first.empty() && first.front() != '-')
        return failure(Exit::usage, fmt::format("'{}' is no verb of syngate; see `syngate --help`", first));
    forget_environment_of_others(app, first);
    try {
        app.parse(ours, argv);
    } catch (const CLI::ParseError& e) {
        if (e.get_exit_code() == 0) { // help or version was asked for
            std::ostringstream text;
            app.exit(e, text, text);
            options.text = text.str();
            return options;
        }
        return failure(Exit::usage, fmt::format("{}; see `syngate --help`", e.what()));
    }
    options.verb = app.get_subcommands().front()->get_name();
    if (const auto r = judge(options); !r)
        return std::unexpected(r.error());
    return options;
}

} // namespace syngate
