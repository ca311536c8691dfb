// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/supervisor.hpp"

#include "gate/gate_json.hpp"
#include "reload/flip_request.hpp"
#include "reload/listening.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

namespace syngate {
namespace {

constexpr Time never = Time::max();
constexpr Duration release_look_every = std::chrono::milliseconds(20);
constexpr Duration term_patience = std::chrono::seconds(1); // to end at once, before SIGKILL

void log(const Outcome& outcome) {
    if (outcome.ok())
        spdlog::info("{}", to_text(outcome));
    else
        spdlog::error("{}", to_text(outcome));
}

} // namespace

Supervisor::Supervisor(Loop& loop, Gate& gate, Sockets& sockets, Server& server, SupervisorOptions options)
    : loop_(loop), gate_(gate), sockets_(sockets), server_(server), options_([&] {
          options.protocol.cancelled = [this] { return stop_signals_ > 0; };
          // What is flipped stays ours, whatever the protocol needs.
          options.protocol.claim = [this](const PortSet& ports) {
              PortSet all = ports;
              all.merge(flipped());
              return options_.claim(all);
          };
          return std::move(options);
      }()),
      protocol_(loop, gate, sockets, server, options_.protocol), manual_(loop, gate) {}

Result<void> Supervisor::prepare() {
    if (const auto r = watch_signals(); !r)
        return r;
    if (options_.watch.empty())
        return {};
    auto watch = PathWatch::start(loop_, options_.watch, options_.watch_quiet,
                                  [this] { requests_.add(false, "a change in a watched path"); });
    if (!watch)
        return std::unexpected(watch.error());
    watch_ = std::move(*watch);
    return {};
}

Result<void> Supervisor::watch_signals() {
    const auto watch = [this](int signal,
                              std::function<void(const signalfd_siginfo&)> handler) -> Result<void> {
        auto source = loop_.on_signal(signal, std::move(handler));
        if (!source)
            return std::unexpected(source.error());
        signals_.push_back(std::move(*source));
        return {};
    };
    Result<void> r;
    for (const int signal : {SIGHUP, SIGUSR2})
        if (r = watch(signal, [this, signal](const auto&) { requests_.add(false, strsignal(signal)); }); !r)
            return r;
    for (const int signal : {SIGTERM, SIGINT})
        if (r = watch(signal, [this, signal](const auto&) { on_stop_signal(strsignal(signal)); }); !r)
            return r;
    // What a server understands in its own way. Job control and SIGCHLD are not the server's business.
    for (const int signal : {SIGUSR1, SIGQUIT, SIGWINCH, SIGTTIN, SIGTTOU})
        if (r = watch(signal,
                      [this, signal](const auto&) {
                          // Its own graceful stop: all generations', and the agent's.
                          if (server_.recipe().graceful && signal == server_.recipe().release_signal)
                              on_release_signal(strsignal(signal));
                          else if (protocol_.current())
                              server_.tell(*protocol_.current(), signal);
                      });
            !r)
            return r;
    return r;
}

void Supervisor::on_stop_signal(const char* name) {
    if (++stop_signals_ == 1)
        spdlog::info("stopping ({}), for at most {}; a second signal ends it at once", name,
                     format_duration(options_.stop_timeout));
}

void Supervisor::on_release_signal(const char* name) {
    if (stop_signals_ == 0) // a second one is no reason to hurry
        on_stop_signal(name);
}

Result<int> Supervisor::run() {
    running_ = true;
    last_ = protocol_.start();
    running_ = false;
    log(last_);
    if (stop_signals_ > 0 && protocol_.latest())
        return stop();
    if (!last_.ok())
        return failure(last_.exit, last_.message);
    if (const auto r = options_.claim(ours()); !r) {
        stop_signals_ = 1;
        stop();
        return std::unexpected(r.error());
    }
    claimed_ = true;
    tell_what_is_left_out();
    options_.events.serving(*protocol_.current(), last_);

    for (;;) {
        loop_.run_until(
            [this] {
                return stop_signals_ > 0 || requests_.pending() || !protocol_.current() ||
                       server_.exited(*protocol_.current());
            },
            never);
        protocol_.reap_retired();
        if (stop_signals_ > 0)
            return stop();
        if (!protocol_.current()) { // a restart failed, and said why
            end_retiring(Clock::now());
            return static_cast<int>(Exit::failed);
        }
        if (const auto status = server_.exited(*protocol_.current()); status) {
            spdlog::error("the server (pid {}) {}", *protocol_.current(), status->text());
            server_.kill(*protocol_.current()); // what the first process may have left of it
            if (manual_.is_closed())
                (void)manual_.open(); // nobody is left to wait for
            end_retiring(Clock::now() + std::chrono::seconds(1));
            return status->as_exit_code();
        }
        run_batch();
    }
}

void Supervisor::run_batch() {
    const auto batch = requests_.take();
    if (manual_.is_closed()) {
        last_ = Outcome{.action = batch.restart ? "restart" : "reload",
                        .exit = Exit::busy,
                        .message = "the gate is closed by hand; `syngate open` first"};
    } else {
        spdlog::info("{} asked for by {}", batch.restart ? "restart" : "reload",
                     fmt::join(batch.reasons, ", "));
        running_ = true;
        options_.events.reloading(batch.restart ? "restart" : "reload");
        last_ = batch.restart ? protocol_.restart() : protocol_.reload();
        running_ = false;
    }
    ++runs_;
    failures_ += last_.ok() ? 0 : 1;
    log(last_);
    tell_what_is_left_out();
    if (protocol_.current())
        options_.events.serving(*protocol_.current(), last_);
    if (manual_.is_closed()) {
        // Keeps the claim on what it is closed on.
    } else if (const auto r = options_.claim(ours()); !r) {
        spdlog::warn("{}: reloads fail until then", r.error().message);
    }
    for (const auto& answer : batch.answers)
        answer(last_);
}

// Ports on which the server listens, and which --ports does not name.
PortSet Supervisor::left_out() {
    const PortSet& named = options_.protocol.ports;
    if (named.empty() || options_.protocol.front != 0 || !protocol_.current())
        return {};
    const auto listeners = server_.listeners(*protocol_.current());
    PortSet ports = listeners ? ports_of(*listeners) : PortSet{};
    std::erase_if(ports, [&](std::uint16_t port) { return named.contains(port); });
    return ports;
}

void Supervisor::tell_what_is_left_out() {
    PortSet ports = left_out();
    if (ports == told_left_out_)
        return;
    told_left_out_ = std::move(ports);
    if (told_left_out_.empty())
        return;
    if (protocol_.current() && !listens_on(*protocol_.current(), options_.protocol.ports))
        spdlog::warn(
            "the server listens on {}, and nowhere on {}, which --ports (SYNGATE_PORTS, HAPROXY_PORTS) "
            "names: reloads and stops are not covered",
            format_ports(told_left_out_), format_ports(options_.protocol.ports));
    else
        spdlog::info(
            "reloads and stops are not covered on {}, which --ports (SYNGATE_PORTS, HAPROXY_PORTS) does "
            "not name",
            format_ports(told_left_out_));
}

// Tells every generation to finish and go, then waits; the newest one's status is the process's.
int Supervisor::stop() {
    const Time deadline = Clock::now() + options_.stop_timeout;
    const auto current = protocol_.latest();
    const PortSet ports = ours();
    options_.events.stopping();
    if (manual_.is_closed())
        (void)manual_.open();
    const auto succession = hand_over(ports);
    if (protocol_.current()) // one that a restart was stopping has been told already
        server_.tell(*current, server_.recipe().release_signal);
    if (give_up_ports(ports, deadline) && succession)
        succession->finish();
    const auto all_ended = [&] {
        protocol_.reap_retired();
        return protocol_.retiring().empty() && (!current || protocol_.has_ended(*current));
    };
    if (!loop_.run_until([&] { return all_ended() || stop_signals_ > 1; }, deadline)) {
        spdlog::warn("the server has not ended within {}, it is ended",
                     format_duration(options_.stop_timeout));
    }
    if (current && !protocol_.has_ended(*current)) {
        if (server_.recipe().release_signal != SIGTERM) {
            server_.tell(*current, SIGTERM);
            loop_.run_until([&] { return protocol_.has_ended(*current); }, Clock::now() + term_patience);
        }
        server_.kill(*current);
        loop_.run_until([&] { return protocol_.has_ended(*current); },
                        Clock::now() + std::chrono::seconds(5));
    }
    end_retiring(Clock::now());
    const auto status = current ? server_.exited(*current) : std::nullopt;
    if (status)
        spdlog::info("stopped; the server {}", status->text());
    return status ? status->as_exit_code() : static_cast<int>(Exit::failed);
}

// A successor finds the ports free once nobody listens here any more: between the two servers the gate is
// closed.
std::unique_ptr<Succession> Supervisor::hand_over(const PortSet& ports) {
    const ProtocolOptions& protocol = options_.protocol;
    if (!claimed_ || !protocol_.current() || !options_.successor(ports))
        return nullptr;
    if (protocol.front != 0 || !flipped().empty()) {
        spdlog::warn(
            "another agent waits for ports {}: what is flipped to other ports cannot be handed over, "
            "so connections may be refused until its server listens",
            format_ports(ports));
        return nullptr;
    }
    if (!listens_on(*protocol_.current(), ports))
        return nullptr;
    spdlog::info("another agent waits for ports {}: handing them over", format_ports(ports));
    SuccessionOptions succession{.ports = ports,
                                 .policy = protocol.policy,
                                 .lease = protocol.lease,
                                 .settle = protocol.settle,
                                 .timeout = protocol.start_timeout,
                                 .drain = protocol.drain};
    if (server_.recipe().graceful)
        succession.drain.finish = Duration::zero(); // it lets open connections finish with the gate open
    succession.cancelled = [this] { return stop_signals_ > 1; };
    succession.successor_lives = [this, ports] { return options_.successor(ports); };
    return Succession::begin(loop_, gate_, sockets_, succession);
}

bool Supervisor::listens_on(Generation generation, const PortSet& ports) {
    if (protocol_.has_ended(generation))
        return false;
    const auto listeners = server_.listeners(generation);
    return !listeners ||
           std::ranges::any_of(*listeners, [&](const Listener& each) { return ports.contains(each.port); });
}

// Open connections may take minutes to finish. A successor need not wait for them: as soon as nobody listens
// here any more, neither the last generation nor an older one, the ports are free for another agent. Whether
// they are.
bool Supervisor::give_up_ports(const PortSet& ports, Time deadline) {
    if (options_.protocol.front != 0 || !protocol_.latest())
        return false; // nobody listens there, but the steering is ours
    const auto let_go = [&] {
        return stop_signals_ > 1 || (!listens_on(*protocol_.latest(), ports) &&
                                     std::ranges::none_of(protocol_.retiring(), [&](Generation generation) {
                                         return listens_on(generation, ports);
                                     }));
    };
    if (!loop_.run_until(let_go, deadline, release_look_every) || !flipped().empty())
        return false;
    options_.give_up();
    return true;
}

void Supervisor::end_retiring(Time deadline) {
    const auto none_left = [this] {
        protocol_.reap_retired();
        return protocol_.retiring().empty();
    };
    if (loop_.run_until(none_left, deadline) || none_left())
        return;
    for (const Generation generation : protocol_.retiring())
        server_.kill(generation);
    loop_.run_until(none_left, Clock::now() + std::chrono::seconds(5));
}

PortSet Supervisor::listening() {
    if (!options_.protocol.ports.empty() || !protocol_.current())
        return options_.protocol.ports;
    const auto listeners = server_.listeners(*protocol_.current());
    return listeners ? ports_of(*listeners) : PortSet{};
}

Result<void> Supervisor::close_by_hand(const nlohmann::json& request) {
    if (running_)
        return failure(Exit::busy, "a reload is under way");
    PortSet ports = listening();
    if (const std::string list = request.value("ports", ""); !list.empty() && list != "auto") {
        const auto parsed = parse_ports(list);
        if (!parsed)
            return std::unexpected(parsed.error());
        PortSet all = ours();
        all.insert(parsed->begin(), parsed->end());
        if (const auto r = options_.claim(all); !r)
            return r;
        ports = *parsed;
    }
    Duration lease = options_.protocol.lease;
    if (const std::string text = request.value("lease", ""); !text.empty()) {
        const auto parsed = parse_duration(text);
        if (!parsed || *parsed <= Duration::zero())
            return failure(Exit::usage,
                           fmt::format("'{}' is no lease: write 3s or 500ms, longer than 0", text));
        lease = *parsed;
    }
    return manual_.close(ports, options_.protocol.policy, lease);
}

// What is flipped stays ours beside what the server listens on.
PortSet Supervisor::ours() {
    PortSet ports = listening();
    ports.merge(flipped());
    return ports;
}

PortSet Supervisor::flipped() const {
    PortSet ports;
    if (const Steerer* steerer = options_.protocol.steerer; steerer)
        for (const auto& [port, target] : steerer->flips())
            ports.insert(port);
    return ports;
}

Result<void> Supervisor::flip_by_hand(const nlohmann::json& request) {
    if (running_)
        return failure(Exit::busy, "a reload is under way");
    if (!options_.protocol.steerer)
        return failure(Exit::impossible,
                       "this agent steers nothing: it runs with --policy hold or drop, or its log says why "
                       "it cannot");
    const std::uint16_t front = options_.protocol.front;
    if (front != 0)
        return failure(Exit::busy,
                       fmt::format("port {} is flipped by each reload (--policy flip), so nothing is "
                                   "flipped here by hand",
                                   front));
    const auto r = run_flip_request(*options_.protocol.steerer, request, [this](const PortSet& ports) {
        PortSet all = ours();
        all.insert(ports.begin(), ports.end());
        return options_.claim(all);
    });
    // What was not flipped after all, or is no more, is for others again.
    if (const auto given_up = options_.claim(ours()); !given_up)
        spdlog::warn("{}", given_up.error().message);
    return r;
}

void Supervisor::handle(const nlohmann::json& request, std::function<void(const nlohmann::json&)> reply) {
    const std::string verb = request.value("verb", "");
    const auto refuse = [&](const Error& error) {
        reply({{"ok", false}, {"exit", static_cast<int>(error.exit)}, {"message", error.message}});
    };
    if (verb == "status") {
        reply(status());
    } else if (stop_signals_ > 0) {
        refuse({Exit::busy, "the agent is stopping"});
    } else if (verb == "reload" || verb == "restart") {
        requests_.add(verb == "restart", "the control socket",
                      [reply = std::move(reply)](const Outcome& outcome) { reply(to_json(outcome)); });
    } else if (verb == "flip") {
        if (const auto r = flip_by_hand(request); !r)
            return refuse(r.error());
        reply({{"ok", true}, {"exit", 0}, {"message", describe(*options_.protocol.steerer)}});
    } else if (verb == "close") {
        if (const auto r = close_by_hand(request); !r)
            return refuse(r.error());
        reply({{"ok", true}, {"exit", 0}, {"message", "closed"}});
    } else if (verb == "open") {
        const auto window = manual_.open();
        if (!window)
            return refuse(window.error());
        nlohmann::json answer = to_json(*window);
        answer.update({{"ok", true}, {"exit", 0}, {"message", "open"}});
        reply(answer);
    } else {
        refuse({Exit::usage, fmt::format("'{}' is no request that `syngate run` knows", verb)});
    }
}

nlohmann::json Supervisor::status() {
    protocol_.reap_retired();
    nlohmann::json retiring = nlohmann::json::array();
    for (const Generation generation : protocol_.retiring())
        retiring.push_back(generation);
    nlohmann::json json = {
        {"ok", true},
        {"exit", 0},
        {"server",
         {{"kind", server_.recipe().kind},
          {"command", fmt::format("{}", fmt::join(server_.recipe().start, " "))},
          {"pid", protocol_.current() ? nlohmann::json(*protocol_.current()) : nlohmann::json()},
          {"retiring", retiring},
          {"policy", protocol_.can_flip() ? "flip" : to_string(options_.protocol.policy)},
          {"ports", format_ports(listening())},
          {"not_covered", told_left_out_.empty() ? "" : format_ports(told_left_out_)}}},
        {"gate", to_json(gate_.status())},
        {"busy", running_},
        {"closed_by_hand", manual_.is_closed()},
        {"reloads", {{"done", runs_}, {"failed", failures_}}},
        {"last", to_json(last_)}};
    if (options_.protocol.steerer)
        json["steering"] = to_json(*options_.protocol.steerer);
    return json;
}

} // namespace syngate
