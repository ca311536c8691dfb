// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/supervised_server.hpp"

#include "server/backing_ports.hpp"
#include "server/process_tree.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ranges>
#include <spdlog/spdlog.h>
#include <utility>

namespace syngate {
namespace {

// A check takes as much of the processors as a start does, and nobody waits for it: the server that serves
// meanwhile comes first.
constexpr int check_niceness = 10;
// A look at every process of the machine takes its time, on a processor that others wait for.
constexpr auto look_again = std::chrono::milliseconds(20);
// From listening to waiting for connections; a server may listen on sockets that it never polls.
constexpr auto poll_patience = std::chrono::milliseconds(200);

class SupervisedServer final : public Server {
public:
    SupervisedServer(Children& children, Sockets& sockets, Recipe recipe, PortSet backing)
        : children_(children), sockets_(sockets), recipe_(std::move(recipe)), backing_(std::move(backing)) {}

    [[nodiscard]] const Recipe& recipe() const override { return recipe_; }

    Result<void> check(Time deadline, const std::function<bool()>& cancelled) override {
        if (recipe_.check.empty())
            return {};
        const auto given = next_port();
        if (!given)
            return std::unexpected(given.error());
        SpawnOptions options = environment(*given);
        options.niceness = check_niceness;
        options.short_turns = true;
        const auto finished =
            children_.run(with_backing_port(recipe_.check, *given), deadline, options, cancelled);
        if (!finished)
            return std::unexpected(finished.error());
        if (!finished->status.signalled && finished->status.value == 0)
            return {};
        return failure(
            Exit::failed,
            fmt::format("the configuration does not pass `{}`, which {}; the running server is untouched: {}",
                        fmt::join(recipe_.check, " "), finished->status.text(), finished->output));
    }

    Result<Generation> start(bool beside) override {
        std::set<std::uint64_t> before;
        if (const auto all = sockets_.listeners(); all)
            for (const Listener& listener : *all)
                before.insert(listener.cookie);
        const auto given = next_port();
        if (!given)
            return std::unexpected(given.error());
        const Argv command = beside && !proc_is_closed_ ? overlap_command(recipe_) : recipe_.start;
        const auto pid = children_.spawn(with_backing_port(command, *given), environment(*given));
        if (!pid)
            return std::unexpected(pid.error());
        if (beside)
            starting_[*pid];
        port_of_[*pid] = *given;
        before_start_[*pid] = std::move(before);
        return *pid;
    }

    [[nodiscard]] std::optional<ExitStatus> exited(Generation generation) const override {
        return children_.status(generation);
    }

    Result<std::vector<Listener>> listeners(Generation generation) override {
        auto all = sockets_.listeners();
        if (!all)
            return all;
        const auto& before = before_start_[generation];
        if (const auto starting = starting_.find(generation); starting != starting_.end()) {
            const bool as_before = std::ranges::all_of(
                *all, [&](const Listener& listener) { return before.contains(listener.cookie); });
            // It may have been given one that was there before (haproxy -x), which only /proc tells.
            const Time now = Clock::now();
            if (as_before && !starting->second.listened && now < starting->second.looked + look_again)
                return std::vector<Listener>{};
            starting->second.looked = now;
        }
        const auto inodes = socket_inodes(process_tree(generation));
        if (!inodes && inodes.error().exit != Exit::impossible)
            return std::unexpected(inodes.error());
        if (!inodes)
            say_once_that_proc_is_closed(inodes.error());
        std::erase_if(*all, [&](const Listener& listener) {
            return inodes ? !inodes->contains(listener.inode) : before.contains(listener.cookie);
        });
        return all;
    }

    Result<std::map<pid_t, std::set<std::uint32_t>>> holders(Generation generation) override {
        const auto all = sockets_.listeners();
        if (!all)
            return std::unexpected(all.error());
        std::map<pid_t, std::set<std::uint32_t>> held;
        for (const pid_t process : process_tree(generation)) {
            const auto inodes = socket_inodes({process});
            if (!inodes)
                return std::unexpected(inodes.error());
            std::set<std::uint32_t>& listening = held[process];
            for (const Listener& listener : *all)
                if (inodes->contains(listener.inode))
                    listening.insert(listener.inode);
        }
        return held;
    }

    Result<std::set<std::uint32_t>> sockets(Generation generation) override {
        return socket_inodes(process_tree(generation));
    }

    [[nodiscard]] bool is_ready(Generation generation) override {
        if (recipe_.graceful && !handles_signal(generation, recipe_.release_signal))
            return false; // another kind dies of the signal at any time
        const auto starting = starting_.find(generation);
        const bool may_be_master = recipe_.graceful && recipe_.reload == ReloadHow::overlap;
        if (!may_be_master && starting == starting_.end())
            return true;
        const auto held = holders(generation);
        if (held && may_be_master && is_still_master(*held, generation))
            return false;
        if (starting == starting_.end())
            return true;
        // Beside another, it is given connections when it would take them, not some milliseconds before.
        const Time now = Clock::now();
        const Time since = starting->second.listened.value_or(now);
        starting->second.listened = since;
        if (held && !polls_its_listeners(*held) && now < since + poll_patience)
            return false;
        starting_.erase(starting);
        return true;
    }

    [[nodiscard]] bool has_processes(Generation generation) override {
        return !process_tree(generation).empty();
    }

    void tell(Generation generation, int signal) override {
        if (!children_.status(generation))
            return send(generation, signal);
        for (const pid_t process : process_tree(generation))
            send(process, signal);
    }

    [[nodiscard]] std::uint16_t backing_port(Generation generation) const override {
        const auto found = port_of_.find(generation);
        return found == port_of_.end() ? std::uint16_t{0} : found->second;
    }

    void kill(Generation generation) override {
        for (const pid_t process : process_tree(generation))
            send(process, SIGKILL);
    }

    void forget(Generation generation) override {
        starting_.erase(generation);
        before_start_.erase(generation);
        port_of_.erase(generation);
        children_.forget(generation);
    }

private:
    using Held = std::map<pid_t, std::set<std::uint32_t>>; // of holders()

    // A HAProxy master hands its sockets to a worker and starts itself anew before it listens to signals.
    [[nodiscard]] static bool is_still_master(const Held& held, Generation generation) {
        const auto first = held.find(generation);
        return held.size() > 1 && first != held.end() && !first->second.empty();
    }

    // True of one that does not wait by epoll: what it waits for nobody can see.
    [[nodiscard]] static bool polls_its_listeners(const Held& held) {
        const auto processes = std::views::keys(held);
        const auto polled = polled_inodes({processes.begin(), processes.end()});
        return !polled || std::ranges::all_of(std::views::values(held), [&](const auto& listening) {
            return std::ranges::includes(*polled, listening);
        });
    }

    // 0: none is given.
    Result<std::uint16_t> next_port() {
        if (backing_.empty())
            return std::uint16_t{0};
        const auto all = sockets_.listeners();
        if (!all)
            return std::unexpected(all.error());
        for (const std::uint16_t port : backing_)
            if (std::ranges::find(*all, port, &Listener::port) == all->end())
                return port;
        return failure(Exit::busy,
                       fmt::format("somebody listens on each of the ports {}, so there is none for "
                                   "the new server; --flip-ports names others",
                                   format_ports(backing_)));
    }

    static SpawnOptions environment(std::uint16_t port) {
        SpawnOptions options;
        if (port != 0)
            options.environment.push_back(fmt::format("{}={}", backing_port_name, port));
        return options;
    }

    static void send(pid_t process, int signal) {
        if (::kill(process, signal) < 0 && errno != ESRCH)
            spdlog::error(
                "cannot send {} to the server (pid {}): {}; it runs as another user: add CAP_KILL, or "
                "run syngate as that user",
                strsignal(signal), process, strerror(errno));
    }

    void say_once_that_proc_is_closed(const Error& error) {
        // Sockets that a server inherits (haproxy -x) would not be seen as its own from now on.
        if (!std::exchange(proc_is_closed_, true))
            spdlog::info("{}; going by which listening sockets are new instead", error.message);
    }

    Children& children_;
    Sockets& sockets_;
    Recipe recipe_;
    PortSet backing_;
    struct Starting {
        Time looked{};                // at its processes' sockets
        std::optional<Time> listened; // when that was seen first
    };

    std::map<Generation, Starting> starting_; // beside another
    std::map<Generation, std::uint16_t> port_of_;
    std::map<Generation, std::set<std::uint64_t>> before_start_; // cookies
    bool proc_is_closed_ = false;
};

} // namespace

std::unique_ptr<Server> make_supervised_server(Children& children, Sockets& sockets, Recipe recipe,
                                               PortSet backing) {
    return std::make_unique<SupervisedServer>(children, sockets, std::move(recipe), std::move(backing));
}

} // namespace syngate
