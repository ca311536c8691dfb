// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/protocol.hpp"

#include "reload/protocol_run.hpp"

namespace syngate {

Protocol::Protocol(Loop& loop, Gate& gate, Sockets& sockets, Server& server, ProtocolOptions options)
    : loop_(loop), gate_(gate), sockets_(sockets), server_(server), options_(std::move(options)) {}

Outcome Protocol::start() {
    Run run(*this, "start");
    const auto started = run.start(options_.ports);
    sockets_.prepare(); // the server has not waited for it, and no drain will
    return run.finish(started);
}

bool Protocol::can_flip() const {
    const Recipe& recipe = server_.recipe();
    return options_.flip != Flip::never && options_.steerer &&
           (options_.front != 0 || recipe.reload == ReloadHow::overlap ||
            (recipe.reload == ReloadHow::signal && recipe.stays_up));
}

Outcome Protocol::reload() {
    Run run(*this, "reload");
    if (options_.front != 0)
        return run.finish(run.blue_green());
    switch (server_.recipe().reload) {
    case ReloadHow::overlap:
        return run.finish(run.overlap());
    case ReloadHow::signal:
        return run.finish(run.signal());
    case ReloadHow::restart:
        break;
    }
    return run.finish(run.restart());
}

Outcome Protocol::restart() {
    Run run(*this, "restart");
    if (options_.front != 0)
        return run.finish(run.blue_green());
    return run.finish(run.restart());
}

bool Protocol::has_ended(Generation generation) {
    if (!server_.exited(generation))
        return false;
    if (!server_.has_processes(generation))
        return true;
    if (rest_told_.insert(generation).second)
        server_.tell(generation, server_.recipe().release_signal);
    return false;
}

void Protocol::reap_retired() {
    std::erase_if(retiring_, [this](Generation generation) {
        if (!has_ended(generation))
            return false;
        rest_told_.erase(generation);
        if (generation != latest_) // whose status is still asked for
            server_.forget(generation);
        return true;
    });
}

} // namespace syngate
