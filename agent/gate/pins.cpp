// SPDX-License-Identifier: GPL-2.0-or-later
#include "gate/pins.hpp"

#include "control/registry.hpp"

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fmt/format.h>
#include <linux/magic.h>
#include <optional>
#include <set>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <utility>

namespace syngate {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view namespace_prefix = "net-";

std::string directory_of(const std::string& base, std::uint64_t network_namespace) {
    return fmt::format("{}/{}{}", base, namespace_prefix, network_namespace);
}

bool on_bpffs(const fs::path& path) {
    struct statfs info {};
    return statfs(path.c_str(), &info) == 0 && static_cast<unsigned long>(info.f_type) == BPF_FS_MAGIC;
}

// The base and the namespace's directory go when nobody has pins there any more.
void remove_empty_parents(const fs::path& path) {
    if (rmdir(path.parent_path().c_str()) == 0)
        rmdir(path.parent_path().parent_path().c_str());
}

void remove_pins(const fs::path& directory) {
    std::error_code ignored;
    fs::remove_all(directory, ignored);
    remove_empty_parents(directory);
}

template <class T> bool parse_number(std::string_view text, T& number, int base) {
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
    return error == std::errc{} && rest == text.data() + text.size();
}

std::vector<fs::path> entries(const fs::path& directory) {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error))
        found.push_back(it->path());
    return found;
}

// Empty when one process at least does not let us look (CAP_SYS_PTRACE): any namespace may live then.
std::optional<std::set<std::uint64_t>> living_network_namespaces() {
    std::set<std::uint64_t> living;
    for (const fs::path& process : entries("/proc")) {
        std::uint64_t pid = 0;
        if (!parse_number(process.filename().native(), pid, 10))
            continue;
        struct stat info {};
        if (stat((process / "ns/net").c_str(), &info) == 0)
            living.insert(info.st_ino);
        else if (errno != ENOENT && errno != ESRCH)
            return {};
    }
    return living;
}

constexpr ino_t initial_pid_namespace = 0xEFFFFFFC; // PROC_PID_INIT_INO in the kernel's proc_ns.h

} // namespace

Result<PinDirectory> PinDirectory::make(const std::string& base, std::uint64_t network_namespace,
                                        std::uint64_t owner_id) {
    const fs::path parent = fs::path(base).parent_path();
    std::error_code hidden; // a bpffs that we may not even look into, as another user than root
    if (!on_bpffs(fs::exists(base, hidden) ? fs::path(base) : parent))
        return failure(Exit::failed,
                       fmt::format("{} is not on a mounted bpffs; `mount -t bpf bpf {}` makes one", base,
                                   parent.string()));
    PinDirectory directory;
    const std::string path = fmt::format("{}/{:016x}", directory_of(base, network_namespace), owner_id);
    for (const auto& each : {base, directory_of(base, network_namespace), path}) {
        if (mkdir(each.c_str(), 0700) == 0 || errno == EEXIST)
            continue;
        return system_failure(fmt::format("cannot make the directory {}", each), errno);
    }
    directory.path_ = path;
    return directory;
}

PinDirectory::PinDirectory(PinDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}

PinDirectory& PinDirectory::operator=(PinDirectory&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
}

PinDirectory::~PinDirectory() {
    if (!path_.empty())
        remove_pins(path_);
}

std::vector<std::string> sweep_pins(const std::string& base, std::uint64_t network_namespace) {
    std::vector<std::string> removed;
    for (const fs::path& path : entries(directory_of(base, network_namespace))) {
        std::uint64_t id = 0;
        if (!parse_number(path.filename().native(), id, 16) || is_alive(id))
            continue;
        remove_pins(path);
        removed.push_back(path);
    }
    return removed;
}

std::vector<std::string> sweep_pins_of_dead_namespaces(const std::string& base) {
    std::vector<std::string> removed;
    struct stat info {};
    if (stat("/proc/self/ns/pid", &info) != 0 || info.st_ino != initial_pid_namespace)
        return removed;
    const auto directories = entries(base); // before the living: an agent that starts now is not swept
    const auto living = living_network_namespaces();
    if (!living)
        return removed;
    for (const fs::path& path : directories) {
        const std::string name = path.filename();
        std::uint64_t number = 0;
        if (!name.starts_with(namespace_prefix) ||
            !parse_number(std::string_view(name).substr(namespace_prefix.size()), number, 10) ||
            living->contains(number))
            continue;
        for (const fs::path& agent : entries(path)) {
            remove_pins(agent);
            removed.push_back(agent);
        }
    }
    return removed;
}

} // namespace syngate
