// SPDX-License-Identifier: GPL-2.0-or-later
#include "control/control_server.hpp"

#include "control/socket_file.hpp"
#include "control/unix_socket.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <map>
#include <sys/stat.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr unsigned max_clients = 64;
constexpr std::size_t max_request = 64 * 1024; // bytes, without the newline
constexpr unsigned max_depth = 32;             // copying and printing JSON recurse
constexpr int max_accepts_at_once = 64;        // so that one burst does not starve the loop

using Json = nlohmann::json;
using Handler = std::function<void(const Json&, Reply)>;

Json refusal(std::string why) {
    return {{"ok", false}, {"exit", static_cast<int>(Exit::failed)}, {"message", std::move(why)}};
}

// What a client sent may be echoed in an answer, so invalid UTF-8 must not throw.
std::string as_line(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
}

bool too_deep(std::string_view text) {
    unsigned depth = 0;
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quoted && c == '\\')
            ++i;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == '[' || c == '{') && ++depth > max_depth)
            return true;
        else if (!quoted && (c == ']' || c == '}') && depth > 0)
            --depth;
    }
    return false;
}

Result<Json> parse_request(std::string_view line) {
    if (too_deep(line))
        return failure(Exit::usage, fmt::format("the request is nested deeper than {} levels", max_depth));
    Json request = Json::parse(line, nullptr, false);
    if (!request.is_object())
        return failure(Exit::usage, "the request is no JSON object: send one object a line");
    return request;
}

// Shared, because a handler may destroy the server while a client's bytes are being looked at, and a
// reply may outlive both.
struct ClientServer : std::enable_shared_from_this<ClientServer> {
    struct Client {
        Fd fd;
        Source source;
        std::uint32_t watched = 0; // what source watches
        std::string in, out;
        std::size_t scanned = 0;  // no newline in in[0, scanned)
        std::uint64_t owed = 0;   // the request that waits for its answer, 0: none
        std::uint64_t active = 0; // rises with what the client does; the smallest has been idle longest
        bool ended = false;       // sends no more
        bool resume = false;      // in may hold the next request already
        bool closing = false;     // to be closed as soon as out is written
    };
    // Answers once, whoever calls; a handler that lets go of it has answered as well.
    struct Pending {
        std::weak_ptr<ClientServer> server;
        std::uint64_t client, request;
        Pending(std::weak_ptr<ClientServer> s, std::uint64_t c, std::uint64_t r)
            : server(std::move(s)), client(c), request(r) {}
        Pending(const Pending&) = delete;
        Pending& operator=(const Pending&) = delete;
        void answer(const Json& json) {
            const auto there = server.lock();
            server.reset();
            if (there)
                there->answer(client, request, json);
        }
        ~Pending() { answer(refusal("the agent gave the request up without an answer")); }
    };

    Loop& loop;
    std::string path;
    Handler handler;
    Acceptor acceptor;
    struct stat file {};
    Source listening;
    std::map<std::uint64_t, Client> clients;
    std::uint64_t next_client = 1, next_request = 1, next_active = 1;

    ClientServer(Loop& l, std::string p, Handler h, Fd fd)
        : loop(l), path(std::move(p)), handler(std::move(h)), acceptor(std::move(fd)) {}

    void accept_clients();
    bool make_room();
    void watch(std::uint64_t id, Client& client);
    void on_client(std::uint64_t id, std::uint32_t revents);
    bool receive(Client& client);
    void take_requests(std::uint64_t id);
    void handle(std::uint64_t id, std::string_view line);
    void answer(std::uint64_t id, std::uint64_t request, const Json& json);
    bool send_some(Client& client);
    void settle(std::uint64_t id);
};

void ClientServer::accept_clients() {
    for (int i = 0; i < max_accepts_at_once; ++i) {
        auto accepted = acceptor.accept();
        if (!accepted.fd)
            return;
        const auto uid = peer_uid(accepted.fd.get());
        std::string why;
        if (!uid || !is_trusted(*uid))
            why = fmt::format("permission denied: uid {} may not control this agent, uid 0 and uid {} may",
                              uid ? std::to_string(*uid) : "unknown", ::geteuid());
        else if (accepted.scarce)
            why = "the agent is out of file descriptors: try again, or raise its limit (LimitNOFILE)";
        else if (!make_room())
            why = fmt::format("the agent has {} requests under way: try again later", max_clients);
        if (!why.empty()) {
            const std::string line = as_line(refusal(why));
            [[maybe_unused]] const auto sent =
                ::send(accepted.fd.get(), line.data(), line.size(), MSG_NOSIGNAL);
            continue;
        }
        const std::uint64_t id = next_client++;
        Client& client = clients[id];
        client.fd = std::move(accepted.fd);
        client.active = next_active++;
        watch(id, client);
    }
}

// With all places taken, the client that has been idle longest goes; one that is owed an answer never does.
bool ClientServer::make_room() {
    if (clients.size() < max_clients)
        return true;
    auto idlest = clients.end();
    for (auto it = clients.begin(); it != clients.end(); ++it)
        if (!it->second.owed && (idlest == clients.end() || it->second.active < idlest->second.active))
            idlest = it;
    if (idlest == clients.end())
        return false;
    clients.erase(idlest);
    return true;
}

// One request of a client at a time: while it is answered no more is read, so buffers stay bounded.
void ClientServer::watch(std::uint64_t id, Client& client) {
    std::uint32_t events = EPOLLHUP;
    if (!client.out.empty() || client.resume)
        events = EPOLLOUT;
    else if (!client.owed && !client.ended)
        events = EPOLLIN;
    if (client.source && client.watched == events)
        return;
    client.source.reset();
    client.watched = events;
    auto source = loop.on_io(client.fd.get(), events, [weak = weak_from_this(), id](std::uint32_t revents) {
        if (const auto self = weak.lock())
            self->on_client(id, revents);
    });
    if (source)
        client.source = std::move(*source);
    else
        clients.erase(id);
}

void ClientServer::on_client(std::uint64_t id, std::uint32_t revents) {
    const auto it = clients.find(id);
    if (it == clients.end())
        return;
    Client& client = it->second;
    const bool gone = (revents & (EPOLLHUP | EPOLLERR)) != 0;
    if ((gone && !(client.watched & EPOLLIN)) || !send_some(client) ||
        ((client.watched & EPOLLIN) && !receive(client))) {
        clients.erase(it);
        return;
    }
    take_requests(id);
}

// False when the connection broke.
bool ClientServer::receive(Client& client) {
    char buffer[16 * 1024];
    const ssize_t size = ::recv(client.fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR;
    client.active = next_active++;
    client.ended = size == 0;
    client.in.append(buffer, static_cast<std::size_t>(size));
    return true;
}

// Hands over the complete lines that are there, until one of them is not answered at once.
void ClientServer::take_requests(std::uint64_t id) {
    for (;;) {
        const auto it = clients.find(id);
        if (it == clients.end())
            return;
        Client& client = it->second;
        if (client.owed || !client.out.empty() || client.closing)
            break;
        std::size_t end = client.in.find('\n', client.scanned);
        if (end == client.in.npos && client.ended && !client.in.empty())
            end = client.in.size(); // the last line needs no newline
        if (std::min(end, client.in.size()) > max_request) {
            client.closing = true;
            client.in.clear();
            client.out = as_line(
                refusal(fmt::format("the request is longer than {} bytes: send it in parts", max_request)));
            if (!send_some(client))
                client.out.clear();
            break;
        }
        if (end == client.in.npos) {
            client.scanned = client.in.size();
            break;
        }
        const std::string line = client.in.substr(0, end);
        client.in.erase(0, end + 1);
        client.scanned = 0;
        handle(id, line);
    }
    clients.at(id).resume = false;
    settle(id);
}

void ClientServer::handle(std::uint64_t id, std::string_view line) {
    const std::uint64_t request = next_request++;
    clients.at(id).owed = request;
    const auto json = parse_request(line);
    if (!json) {
        answer(id, request, refusal(json.error().message));
        return;
    }
    const auto pending = std::make_shared<Pending>(weak_from_this(), id, request);
    const Handler call = handler; // lives on when the handler destroys the server
    // A handler that takes a member of the wrong type throws; that is the request's fault.
    try {
        call(*json, [pending](const Json& reply) { pending->answer(reply); });
    } catch (const Json::exception& error) {
        pending->answer(refusal(fmt::format("the request has a member of the wrong type: {}", error.what())));
    }
}

void ClientServer::answer(std::uint64_t id, std::uint64_t request, const Json& json) {
    const auto it = clients.find(id);
    if (it == clients.end() || it->second.owed != request)
        return;
    Client& client = it->second;
    client.owed = 0;
    client.active = next_active++;
    client.out += as_line(json);
    // Not from here: whoever answers need not be ready for the next request; the loop comes back to it.
    client.resume = !client.in.empty();
    if (!send_some(client)) {
        clients.erase(it);
        return;
    }
    settle(id);
}

// False when the connection broke.
bool ClientServer::send_some(Client& client) {
    while (!client.out.empty()) {
        const ssize_t size =
            ::send(client.fd.get(), client.out.data(), client.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0)
            return errno == EAGAIN || errno == EINTR;
        client.active = next_active++;
        client.out.erase(0, static_cast<std::size_t>(size));
    }
    return true;
}

// Watches what is to come next, or closes when nothing is.
void ClientServer::settle(std::uint64_t id) {
    const auto it = clients.find(id);
    if (it == clients.end())
        return;
    Client& client = it->second;
    const bool finished = client.closing || (client.ended && !client.owed && client.in.empty());
    if (finished && client.out.empty())
        clients.erase(it);
    else
        watch(id, client);
}

} // namespace

struct ControlServer::Impl {
    std::shared_ptr<ClientServer> server;
};

ControlServer::ControlServer() : impl_(std::make_unique<Impl>()) {}

Result<std::unique_ptr<ControlServer>> ControlServer::start(Loop& loop, const std::string& path,
                                                            std::function<void(const Json&, Reply)> handler) {
    auto fd = listen_at(path, max_clients);
    if (!fd)
        return std::unexpected(fd.error());
    std::unique_ptr<ControlServer> control(new ControlServer);
    control->impl_->server = std::make_shared<ClientServer>(loop, path, std::move(handler), std::move(*fd));
    ClientServer& server = *control->impl_->server;
    if (::lstat(path.c_str(), &server.file) < 0)
        return system_failure(fmt::format("the control socket '{}' vanished while it was made", path), errno);
    auto source = loop.on_io(server.acceptor.fd(), EPOLLIN, [weak = server.weak_from_this()](std::uint32_t) {
        if (const auto self = weak.lock())
            self->accept_clients();
    });
    if (!source)
        return std::unexpected(source.error());
    server.listening = std::move(*source);
    return control;
}

ControlServer::~ControlServer() {
    if (!impl_->server)
        return;
    ClientServer& server = *impl_->server;
    // Another agent may have taken the path when somebody had removed our file.
    struct stat status {};
    if (::lstat(server.path.c_str(), &status) == 0 && status.st_ino == server.file.st_ino &&
        status.st_dev == server.file.st_dev)
        ::unlink(server.path.c_str());
    // Not left to the destructor: a handler that is being called keeps the server a little longer.
    server.listening.reset();
    server.acceptor.close();
    server.clients.clear();
}

} // namespace syngate
