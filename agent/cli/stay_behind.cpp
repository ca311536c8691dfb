// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/stay_behind.hpp"

#include "base/fd.hpp"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace syngate {
namespace {

using Work = std::function<Result<void>(const std::function<void(const std::string&)>& ready)>;

// In the child: the outcome goes to the parent as JSON through `report`.
[[noreturn]] void be_agent(const Work& work, Fd report) {
    const auto tell = [&](const nlohmann::json& json) {
        const std::string text = json.dump();
        if (write(report.get(), text.data(), text.size()) < 0)
            _exit(static_cast<int>(Exit::failed));
        report.reset();
    };
    setsid();
    // The caller's files and pipes must not wait for us: its standard ones go once the answer is out.
    const int kept = report.get();
    if (kept > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, static_cast<unsigned>(kept - 1), 0);
    close_range(static_cast<unsigned>(kept + 1), ~0U, 0);
    const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    const auto r = work([&](const std::string& message) {
        dup2(null.get(), STDIN_FILENO);
        dup2(null.get(), STDOUT_FILENO);
        dup2(null.get(), STDERR_FILENO);
        tell({{"ok", true}, {"exit", 0}, {"message", message}});
    });
    if (!r && report)
        tell({{"ok", false}, {"exit", static_cast<int>(r.error().exit)}, {"message", r.error().message}});
    _exit(r ? 0 : static_cast<int>(r.error().exit));
}

} // namespace

Result<int> stay_behind(const Work& work, bool as_json) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) < 0)
        return system_failure("cannot make a pipe", errno);
    const Fd in(ends[0]);
    Fd out(ends[1]);
    const pid_t child = fork();
    if (child < 0)
        return system_failure("cannot start the process that stays behind", errno);
    if (child == 0)
        be_agent(work, std::move(out));
    out.reset();
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t n = 0; (n = read(in.get(), buffer.data(), buffer.size())) > 0;)
        text.append(buffer.data(), static_cast<std::size_t>(n));
    const auto answer = nlohmann::json::parse(text, nullptr, false);
    if (answer.is_discarded())
        return failure(Exit::failed, "the process that was to stay behind ended without a word");
    const int status = answer.value("exit", static_cast<int>(Exit::failed));
    if (status != 0 && !as_json)
        return failure(static_cast<Exit>(status), answer.value("message", ""));
    fmt::print("{}\n", as_json ? answer.dump() : answer.value("message", ""));
    return status;
}

} // namespace syngate
