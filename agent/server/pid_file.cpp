// SPDX-License-Identifier: GPL-2.0-or-later
#include "server/pid_file.hpp"

#include "base/fd.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <fmt/format.h>
#include <fstream>
#include <string>
#include <unistd.h>

namespace syngate {

PidFile::~PidFile() {
    // A successor may have written its own meanwhile.
    std::string now;
    if (written_ != 0 && std::getline(std::ifstream(path_), now) && now == std::to_string(written_))
        ::unlink(path_.c_str());
}

Result<void> PidFile::write(pid_t pid) {
    if (path_.empty())
        return {};
    const std::string draft = fmt::format("{}.{}", path_, ::getpid());
    const auto failed = [&] {
        const int code = errno;
        ::unlink(draft.c_str());
        return system_failure(
            fmt::format(
                "cannot write the pid file '{}' (make its directory writable, with a read-only root file "
                "system a tmpfs, or name another one with --pid-file)",
                path_),
            code);
    };
    // In a directory where others may write it may have been made by them.
    ::unlink(draft.c_str());
    const Fd fd(::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!fd)
        return failed();
    const std::string text = fmt::format("{}\n", pid);
    if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        return failed();
    if (::rename(draft.c_str(), path_.c_str()) < 0)
        return failed();
    written_ = pid;
    return {};
}

} // namespace syngate
