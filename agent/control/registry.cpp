// SPDX-License-Identifier: GPL-2.0-or-later
// How a claim is settled without a lock that a dead or hostile process could hold.
//
// A claimant first publishes what it wants, then asks every agent, and takes the ports when nobody objects.
//   - A peer has settled one of the ports: the claimant loses, whoever is older.
//   - A peer is claiming one of them and is older: the claimant loses.
//   - A peer is claiming one of them and is younger: the claimant goes on. That is safe, because it asked
//   under a
//     name that tells its age: a claimant that is asked by an older one asks it back before it settles,
//     and then sees the older one's claim.
// Every agent is single-threaded, so what it answers and when it settles are in one order: the older one's
// question comes either after the younger has settled, and is answered with that, or before. Two that wait
// for each other go on because each wait serves the agents of this process as well.
#include "control/registry.hpp"

#include "control/registry_protocol.hpp"
#include "control/socket_owner.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <iterator>
#include <map>
#include <poll.h>
#include <sys/stat.h>
#include <utility>

namespace syngate {

using registry::Age;
using registry::Statement;

namespace {

constexpr Duration patience = std::chrono::seconds(3);           // for one peer, which may wait for a lock
constexpr Duration before_retry = std::chrono::milliseconds(10); // of a peer whose backlog is full
constexpr Duration contest_is_recent = std::chrono::seconds(5);
constexpr int backlog = 1024; // questions that wait while we are busy
constexpr int max_answers_at_once = 64;

struct Agent {
    Statement statement;
    Acceptor acceptor;
    Source source;
    std::set<std::uint64_t> ask_back;        // older claimants that asked while we claim
    std::map<std::uint64_t, Time> claimants; // who asked, and when: recent ones

    explicit Agent(Fd fd) : acceptor(std::move(fd)) {}
    void serve();
    void note_claimant(const Age& age);
};

// The agents of this process: while one waits for an answer, it answers for all of them.
std::vector<Agent*>& own() {
    static std::vector<Agent*> agents;
    return agents;
}

bool is_past(Time contested) {
    return Clock::now() - contested >= contest_is_recent;
}

void Agent::note_claimant(const Age& age) {
    std::erase_if(claimants, [](const auto& each) { return is_past(each.second); });
    claimants[age.id] = Clock::now();
}

// A message fits into a socket's buffer, so nothing here waits for a peer.
void Agent::serve() {
    for (int i = 0; i < max_answers_at_once; ++i) {
        const auto accepted = acceptor.accept();
        if (!accepted.fd)
            return;
        const auto asking = registry::parse_claimant_name(accepted.from.abstract_name());
        const auto uid = peer_uid(accepted.fd.get());
        const bool claims = !statement.claiming.empty() || statement.claiming_transparent;
        const bool counts = asking && uid && is_trusted(*uid);
        if (counts)
            note_claimant(*asking);
        if (counts && claims && *asking < statement.age())
            ask_back.insert(asking->id);
        const int room = registry::max_message;
        ::setsockopt(accepted.fd.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
        const std::string message = registry::to_message(statement);
        [[maybe_unused]] const auto sent =
            ::send(accepted.fd.get(), message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
}

// Waits until fd (-1: none) is readable, and serves our own agents meanwhile. False at the deadline.
bool wait_serving(int fd, Time deadline) {
    std::vector<pollfd> entries{{.fd = fd, .events = POLLIN, .revents = 0}};
    const std::vector<Agent*> agents = own();
    for (const Agent* agent : agents)
        entries.push_back({.fd = agent->acceptor.fd(), .events = POLLIN, .revents = 0});
    do {
        if (::poll(entries.data(), entries.size(), milliseconds_until(deadline)) <= 0)
            continue;
        for (std::size_t i = 0; i < agents.size(); ++i)
            if (entries[i + 1].revents)
                agents[i]->serve();
        if (entries[0].revents)
            return true;
    } while (Clock::now() < deadline);
    return false;
}

enum class PeerOutcome {
    answered,
    gone,    // nobody listens
    foreign, // owned by somebody who does not count
    silent,  // it lives and said nothing, or nothing that we understand
};

struct Answer {
    PeerOutcome outcome = PeerOutcome::silent;
    std::int64_t pid = 0; // as our PID namespace numbers it; 0: unknown
    Statement statement;
    std::string why; // silent
};

Result<Fd> new_socket() {
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd)
        return system_failure("cannot make a UNIX socket to ask other agents", errno);
    return fd;
}

// Connects once. 0, or what connect(2) said.
int connect_to_agent(int fd, std::uint64_t id) {
    const auto address = abstract_address(registry::agent_name(id));
    return ::connect(fd, address.get(), address.length) == 0 ? 0 : errno;
}

// Of one that nobody can connect to: its backlog is full, which a stranger may have brought about on purpose.
bool is_strangers(std::uint64_t id) {
    const auto uid = listener_owner(registry::agent_name(id));
    return uid && !is_trusted(*uid);
}

// Reads the one message. Empty: try again, or look whether it is gone.
std::optional<Answer> read_answer(int fd, std::uint64_t id, std::int64_t pid) {
    std::string message(registry::max_message, '\0');
    const ssize_t size = ::recv(fd, message.data(), message.size(), MSG_DONTWAIT);
    if (size <= 0)
        return {};
    message.resize(static_cast<std::size_t>(size));
    auto statement = registry::parse_message(message);
    std::optional<Answer> answer(std::in_place);
    answer->pid = pid;
    if (statement && statement->peer.id == id) {
        answer->outcome = PeerOutcome::answered;
        answer->statement = std::move(*statement);
    } else {
        answer->why = "answered what this version does not understand";
    }
    return answer;
}

Result<Answer> ask_agent(std::uint64_t id, const std::optional<Age>& claimant) {
    for (Agent* agent : own()) {
        if (agent->statement.peer.id != id)
            continue;
        if (claimant)
            agent->note_claimant(*claimant);
        return Answer{.outcome = PeerOutcome::answered, .pid = ::getpid(), .statement = agent->statement};
    }
    const Time deadline = Clock::now() + patience;
    Answer silent;
    do {
        const auto fd = new_socket();
        if (!fd)
            return std::unexpected(fd.error());
        if (claimant) {
            const auto random = registry::random_id();
            if (!random)
                return std::unexpected(random.error());
            const auto name = abstract_address(registry::claimant_name(*claimant, *random));
            if (::bind(fd->get(), name.get(), name.length) < 0)
                return system_failure("cannot name the socket that asks other agents", errno);
        }
        const int error = connect_to_agent(fd->get(), id);
        if (error == ECONNREFUSED)
            return Answer{.outcome = PeerOutcome::gone};
        if (error != 0 && error != EAGAIN)
            return system_failure(fmt::format("cannot ask the agent {:016x}", id), error);
        if (error == EAGAIN) {
            if (is_strangers(id))
                return Answer{.outcome = PeerOutcome::foreign};
            silent.why = "has too many questions waiting";
            wait_serving(-1, std::min(deadline, Clock::now() + before_retry));
            continue;
        }
        ucred owner{};
        socklen_t length = sizeof(owner);
        if (::getsockopt(fd->get(), SOL_SOCKET, SO_PEERCRED, &owner, &length) < 0 || !is_trusted(owner.uid))
            return Answer{.outcome = PeerOutcome::foreign};
        silent.pid = owner.pid;
        silent.why = fmt::format("did not answer within {}", format_duration(patience));
        if (!wait_serving(fd->get(), deadline))
            continue;
        if (const auto answer = read_answer(fd->get(), id, owner.pid))
            return *answer;
        // It ended, or could not send: find out which.
        silent.why = "closes connections without an answer";
        if (!is_alive(id))
            return Answer{.outcome = PeerOutcome::gone};
        wait_serving(-1, std::min(deadline, Clock::now() + before_retry));
    } while (Clock::now() < deadline);
    return silent;
}

std::unexpected<Error> unknown_claim(std::uint64_t id, const Answer& answer) {
    return failure(
        Exit::busy,
        fmt::format("whether another agent gates these ports is unknown: the agent {:016x} (pid {}) {}; "
                    "it is stopped, hung or of another version: continue it (SIGCONT), or end it",
                    id, answer.pid > 0 ? std::to_string(answer.pid) : "in another PID namespace", answer.why),
        ETIMEDOUT);
}

std::unexpected<Error> taken(std::uint16_t port, const Statement& other, bool settled) {
    return failure(
        Exit::busy,
        fmt::format("port {} {} by another agent in this network namespace: pid {} (`syngate {}`), "
                    "control socket '{}'; use that one, stop it, or leave the port out",
                    port, settled ? "is gated" : "is being claimed", other.peer.pid, other.peer.command,
                    other.peer.control_path),
        EADDRINUSE);
}

std::unexpected<Error> transparent_taken(const Statement& other) {
    return failure(
        Exit::busy,
        fmt::format("transparent proxying is done by another agent in this network namespace already: pid {} "
                    "(`syngate {}`), control socket '{}'; it serves every transparent connection here, so "
                    "--transparent off will do for this one, unless it has rules of its own to intercept",
                    other.peer.pid, other.peer.command, other.peer.control_path),
        EADDRINUSE);
}

std::optional<std::uint16_t> first_common(const PortSet& a, const PortSet& b) {
    for (const std::uint16_t port : a)
        if (b.contains(port))
            return port;
    return {};
}

// `exec` puts a gate around whatever its command does, with agents that come and go inside; see ADR 9.
bool stands_around(const Statement& statement) {
    return statement.peer.command == "exec";
}

// Why this claim of `self` fails, as far as `other` is concerned.
std::optional<Error> objection(const Statement& self, const Statement& other) {
    const bool older = other.age() < self.age();
    if (self.claiming_transparent && (other.peer.transparent || (other.claiming_transparent && older)))
        return transparent_taken(other).error();
    if (stands_around(other) != stands_around(self)) // of ports alone
        return {};
    if (const auto port = first_common(self.claiming, other.peer.ports))
        return taken(*port, other, true).error();
    if (const auto port = first_common(self.claiming, other.claiming); port && older)
        return taken(*port, other, false).error();
    return {};
}

// Asks everybody about what self.statement.claiming publishes; see the top of this file. Also after the first
// who objects: each of them learns who waits.
Result<void> contest(Agent& self) {
    auto ids = registry::list_ids();
    if (!ids)
        return std::unexpected(ids.error());
    const Age age = self.statement.age();
    ids->erase(age.id);
    std::optional<Error> lost;
    while (!ids->empty()) {
        for (const std::uint64_t id : *ids) {
            const auto answer = ask_agent(id, age);
            if (!answer)
                return std::unexpected(answer.error());
            std::optional<Error> why;
            if (answer->outcome == PeerOutcome::silent)
                why = unknown_claim(id, *answer).error();
            else if (answer->outcome == PeerOutcome::answered)
                why = objection(self.statement, answer->statement);
            if (why && !lost)
                lost = std::move(why);
        }
        ids->clear();
        ids->swap(self.ask_back);
    }
    return lost ? Result<void>(std::unexpected(std::move(*lost))) : Result<void>{};
}

} // namespace

struct Registry::Impl {
    Agent agent;
    explicit Impl(Fd fd) : agent(std::move(fd)) { own().push_back(&agent); }
    ~Impl() { std::erase(own(), &agent); }
};

Registry::Registry() = default;
Registry::~Registry() = default;

Result<std::unique_ptr<Registry>> Registry::announce(Loop& loop, const std::string& command,
                                                     const std::string& control_path) {
    const auto id = registry::random_id();
    if (!id)
        return std::unexpected(id.error());
    auto fd = new_socket();
    if (!fd)
        return std::unexpected(fd.error());
    const auto address = abstract_address(registry::agent_name(*id));
    if (::bind(fd->get(), address.get(), address.length) < 0 || ::listen(fd->get(), backlog) < 0)
        return system_failure(fmt::format("cannot announce this agent as '@{}'", registry::agent_name(*id)),
                              errno);
    std::unique_ptr<Registry> result(new Registry);
    result->impl_ = std::make_unique<Impl>(std::move(*fd));
    Agent& agent = result->impl_->agent;
    agent.statement.peer = {.id = *id,
                            .pid = ::getpid(),
                            .control_path = control_path,
                            .command = command,
                            .ports = {},
                            .since_ns = to_ns(Clock::now())};
    auto source = loop.on_io(agent.acceptor.fd(), EPOLLIN, [&agent](std::uint32_t) { agent.serve(); });
    if (!source)
        return std::unexpected(source.error());
    agent.source = std::move(*source);
    return result;
}

std::uint64_t Registry::id() const {
    return impl_->agent.statement.peer.id;
}

const PortSet& Registry::claimed() const {
    return impl_->agent.statement.peer.ports;
}

Result<void> Registry::claim(const PortSet& ports) {
    Agent& self = impl_->agent;
    Statement& statement = self.statement;
    // What is ours already is not contested, so that giving ports up needs nobody's answer.
    std::ranges::set_difference(ports, statement.peer.ports,
                                std::inserter(statement.claiming, statement.claiming.end()));
    self.ask_back.clear();
    const auto result = statement.claiming.empty() ? Result<void>{} : contest(self);
    statement.claiming.clear();
    if (result)
        statement.peer.ports = ports;
    return result;
}

void Registry::wait_for(const PortSet& ports) {
    impl_->agent.statement.peer.waiting = ports;
}

std::vector<Peer> Registry::successors(const PortSet& ports) const {
    std::vector<Peer> peers;
    const auto claimants = impl_->agent.claimants; // who ask while we do change them
    for (const auto& [id, contested] : claimants) {
        if (is_past(contested))
            continue;
        const auto answer = ask_agent(id, {});
        if (!answer || answer->outcome != PeerOutcome::answered)
            continue;
        const Peer& peer = answer->statement.peer;
        if (peer.command == impl_->agent.statement.peer.command &&
            (first_common(ports, peer.waiting) || first_common(ports, peer.ports)))
            peers.push_back(peer);
    }
    return peers;
}

void Registry::lend_transparent() {
    Peer& self = impl_->agent.statement.peer;
    self.lends = std::exchange(self.transparent, false);
}

Result<void> Registry::claim_transparent(bool wanted) {
    Agent& self = impl_->agent;
    Statement& statement = self.statement;
    statement.peer.lends = false;
    if (!wanted || statement.peer.transparent) {
        statement.peer.transparent = wanted;
        return {};
    }
    statement.claiming_transparent = true;
    self.ask_back.clear();
    const auto result = contest(self);
    statement.claiming_transparent = false;
    statement.peer.transparent = result.has_value();
    return result;
}

bool wait_answering(int fd, Time deadline) {
    return wait_serving(fd, deadline);
}

Result<std::vector<Peer>> find_peers() {
    const auto ids = registry::list_ids();
    if (!ids)
        return std::unexpected(ids.error());
    std::vector<Peer> peers;
    for (const std::uint64_t id : *ids) {
        const auto answer = ask_agent(id, {});
        if (!answer)
            return std::unexpected(answer.error());
        if (answer->outcome == PeerOutcome::answered)
            peers.push_back(answer->statement.peer);
        else if (answer->outcome == PeerOutcome::silent)
            peers.push_back({.id = id, .pid = answer->pid});
    }
    return peers;
}

bool is_alive(std::uint64_t id) {
    const auto fd = new_socket();
    // All else than a refusal leaves it open: then nobody may clean up after it.
    return !fd || connect_to_agent(fd->get(), id) != ECONNREFUSED;
}

Result<std::uint64_t> network_namespace() {
    struct stat status {};
    if (::stat("/proc/self/ns/net", &status) < 0)
        return system_failure("cannot tell the network namespace (is /proc mounted for this PID namespace?)",
                              errno);
    return status.st_ino;
}

} // namespace syngate
