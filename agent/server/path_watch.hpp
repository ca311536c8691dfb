// SPDX-License-Identifier: GPL-2.0-or-later
// Notices that a configuration changed (inotify): edited in place, replaced by rename, swapped
// through a symbolic link (Kubernetes' ..data), or bind-mounted as a single file.
#pragma once

#include "base/clock.hpp"
#include "base/result.hpp"
#include "event/loop.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace syngate {

class PathWatch {
public:
    // paths: files, or directories with those below them (path_look.hpp says how far; one warning names what
    // is left out). changed is called from the loop once no further event has come for `quiet`, so that a
    // burst is one change, and only if the files are others by then, or one was written to: what a server
    // makes and removes for itself, such as sockets, is none. A path that is missing: Exit::usage.
    static Result<std::unique_ptr<PathWatch>> start(Loop& loop, const std::vector<std::string>& paths,
                                                    Duration quiet, std::function<void()> changed);
    ~PathWatch();

private:
    PathWatch();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace syngate
