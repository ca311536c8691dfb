// SPDX-License-Identifier: GPL-2.0-or-later
#include "probe/features.hpp"

#include "base/fd.hpp"
#include "probe/capabilities.hpp"
#include "probe/scratch_child.hpp"
#include "probe/switches.hpp"
#include "steer/steer_maps.hpp"

#include <algorithm>
#include <array>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <divert.skel.h>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/inet_diag.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <memory>
#include <net/if.h>
#include <netinet/in.h>
#include <replay.skel.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace syngate {
namespace {

constexpr auto tcx_ingress =
    static_cast<bpf_attach_type>(46); // BPF_TCX_INGRESS; libbpf 1.1 has no name for it
constexpr Duration scratch_patience = std::chrono::seconds(10);

// libbpf writes to standard error by itself; while this lives, the first line is kept instead.
class LibbpfSilence {
public:
    LibbpfSilence() : before_(libbpf_set_print(keep)) { text_.clear(); }
    ~LibbpfSilence() { libbpf_set_print(before_); }
    LibbpfSilence(const LibbpfSilence&) = delete;
    LibbpfSilence& operator=(const LibbpfSilence&) = delete;
    // What was said since the last call, on one line.
    static std::string take() { return std::exchange(text_, {}); }

private:
    static int keep(libbpf_print_level level, const char* format, va_list arguments) {
        char line[512];
        const int size = std::vsnprintf(line, sizeof(line), format, arguments);
        if (level == LIBBPF_WARN && size > 0 && text_.empty()) {
            constexpr std::string_view prefix = "libbpf: ";
            text_ = line;
            if (text_.starts_with(prefix))
                text_.erase(0, prefix.size());
            while (text_.ends_with('\n'))
                text_.pop_back();
        }
        return size;
    }
    libbpf_print_fn_t before_;
    static inline std::string text_;
};

std::string error_text(int error) {
    const char* name = ::strerrorname_np(error);
    std::string text = fmt::format("{} ({})", std::strerror(error), name ? name : "?");
    if (std::string said = LibbpfSilence::take(); !said.empty()) {
        std::ranges::replace(said, '\n', ' ');
        text += fmt::format("; libbpf: {}", said);
    }
    return text;
}

Feature outcome(std::string_view name, std::string_view tried, int error) {
    if (error == 0)
        LibbpfSilence::take();
    return {.name = std::string(name),
            .available = error == 0,
            .how = fmt::format("{}: {}", tried, error == 0 ? "ok" : error_text(error))};
}

Fd new_map(bpf_map_type type, unsigned key, unsigned value, unsigned entries, unsigned flags) {
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = flags);
    // Unnamed: before 4.15 a name is an error, and libbpf asks by one more system call.
    return Fd(::bpf_map_create(type, nullptr, key, value, entries, &options));
}

Feature probe_map(std::string_view name, std::string_view type_name, bpf_map_type type, unsigned key,
                  unsigned value, unsigned entries, unsigned flags) {
    const Fd map = new_map(type, key, value, entries, flags);
    return outcome(name, fmt::format("creating a BPF_MAP_TYPE_{} map", type_name), map ? 0 : errno);
}

Feature probe_mmap_array() {
    const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const Fd map = new_map(BPF_MAP_TYPE_ARRAY, 4, 8, static_cast<unsigned>(size / 8), BPF_F_MMAPABLE);
    if (!map)
        return outcome(feature::mmap_array, "creating an array map with BPF_F_MMAPABLE", errno);
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
    const int error = memory == MAP_FAILED ? errno : 0;
    if (!error)
        ::munmap(memory, size);
    return outcome(feature::mmap_array, "mapping an array map into memory", error);
}

struct Program {
    Fd fd;
    int error = 0;
};

// Returns 2: XDP_PASS, or TC_ACT_SHOT where nothing ever comes by.
Program load_program(bpf_prog_type type, int verdict = 2, bpf_attach_type attach_type = {}) {
    LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = attach_type);
    const std::array<bpf_insn, 2> code{{
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = verdict},
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    }};
    Program program;
    program.fd = Fd(::bpf_prog_load(type, nullptr, "GPL", code.data(), code.size(), &options));
    program.error = program.fd ? 0 : errno;
    return program;
}

// No interface has this index. A kernel that knows the attach type looks for the interface, others do not
// come so far.
Feature probe_tcx(const Program& cls) {
    if (!cls.fd)
        return outcome(feature::tcx, "loading the sched_cls program to attach", cls.error);
    constexpr std::string_view tried = "attaching by a TCX link to an interface that does not exist";
    const Fd link(::bpf_link_create(cls.fd.get(), INT_MAX, tcx_ingress, nullptr));
    const int error = link ? 0 : errno;
    Feature result = outcome(feature::tcx, tried, error);
    result.available = error == ENODEV;
    if (result.available)
        result.how += ": the kernel knows TCX";
    return result;
}

int attach_tc(int program) {
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(::if_nametoindex("lo")),
                .attach_point = BPF_TC_INGRESS);
    LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program);
    const int error = ::bpf_tc_hook_create(&hook);
    return error ? -error : -::bpf_tc_attach(&hook, &options);
}

int attach_xdp(int program) {
    LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_SKB_MODE);
    const Fd link(::bpf_link_create(program, static_cast<int>(::if_nametoindex("lo")), BPF_XDP, &options));
    return link ? 0 : errno;
}

Feature probe_attach(std::string_view name, std::string_view tried, const Program& program,
                     int (*attach)(int)) {
    if (!program.fd)
        return outcome(name, "loading the program to attach", program.error);
    // The child tells how it went: '+' or '-', then the line.
    const auto said = in_scratch_namespace(
        [&] {
            LibbpfSilence::take();
            const Feature result = outcome(name, tried, attach(program.fd.get()));
            return (result.available ? '+' : '-') + result.how;
        },
        scratch_patience);
    if (said)
        return {.name = std::string(name),
                .available = said->starts_with('+'),
                .how = said->empty() ? "" : said->substr(1)};
    if (said.error().code == EPERM)
        return {.name = std::string(name),
                .available = true,
                .how = "not probed: needs CAP_SYS_ADMIN for a scratch network namespace"};
    return {.name = std::string(name),
            .available = false,
            .how = fmt::format("{}: {}", tried, said.error().message)};
}

// By the program that replay's own object has for this: it drops the frame, so nobody sees it.
Feature probe_live_frames() {
    const std::unique_ptr<replay, decltype(&replay__destroy)> skeleton(replay__open(), replay__destroy);
    if (!skeleton)
        return outcome(feature::live_frames, "opening the replay object", errno);
    ::bpf_program__set_autoload(skeleton->progs.syngate_replay, false);
    if (const int error = replay__load(skeleton.get()))
        return outcome(feature::live_frames, "loading the replay object", -error);
    std::array<unsigned char, 60> frame{};
    xdp_md context{};
    context.data_end = frame.size();
    context.ingress_ifindex = ::if_nametoindex("lo");
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(), .data_size_in = frame.size(),
                .ctx_in = &context, .ctx_size_in = sizeof(context), .repeat = 1,
                .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
    const int error = ::bpf_prog_test_run_opts(::bpf_program__fd(skeleton->progs.syngate_probe), &options);
    return outcome(feature::live_frames, "BPF_PROG_RUN with BPF_F_TEST_XDP_LIVE_FRAMES on lo", -error);
}

// All that steering stands on: its programs, the iterator that captures sockets, and an attachment.
Feature probe_sk_lookup() {
    constexpr std::string_view tried =
        "loading the steering's object and attaching it to a scratch namespace";
    const auto maps = SteerMaps::load(0);
    if (!maps)
        return outcome(feature::sk_lookup, "loading the steering's object", maps.error().code);
    const auto said = in_scratch_namespace(
        [&] {
            const auto link = (*maps)->attach();
            return link ? "+" : link.error().message;
        },
        scratch_patience);
    if (!said && said.error().code == EPERM)
        return {
            .name = std::string(feature::sk_lookup),
            .available = true,
            .how =
                "loading the steering's object: ok; attaching not probed: needs CAP_SYS_ADMIN for a scratch "
                "network namespace"};
    const bool attached = said && *said == "+";
    return {.name = std::string(feature::sk_lookup),
            .available = attached,
            .how = fmt::format("{}: {}", tried,
                               attached ? "ok"
                               : said   ? *said
                                        : said.error().message)};
}

// With maps of its own, and nothing to intercept: that needs sk_lookup.
Feature probe_divert() {
    const std::unique_ptr<::divert, decltype(&divert__destroy)> skeleton(divert__open(), divert__destroy);
    if (!skeleton)
        return outcome(feature::divert, "opening the divert object", errno);
    skeleton->rodata->may_look = verifier_trusts();
    ::bpf_program__set_autoload(skeleton->progs.syngate_offer, false);
    return outcome(feature::divert, "loading the divert program", -divert__load(skeleton.get()));
}

Feature probe_bpffs(const std::string& wanted) {
    std::filesystem::path path = wanted;
    struct statfs status {};
    while (::statfs(path.c_str(), &status) < 0) {
        if (errno != ENOENT || !path.has_relative_path())
            return outcome(feature::bpffs, fmt::format("statfs of {}", path.string()), errno);
        path = path.has_parent_path() ? path.parent_path() : ".";
    }
    if (status.f_type != static_cast<decltype(status.f_type)>(BPF_FS_MAGIC))
        return {
            .name = std::string(feature::bpffs),
            .available = false,
            .how = fmt::format("{} is on no BPF file system: `mount -t bpf bpf /sys/fs/bpf`", path.string())};
    const int error = ::faccessat(AT_FDCWD, path.c_str(), W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
    return outcome(feature::bpffs, fmt::format("writing to the BPF file system at {}", path.string()), error);
}

// A dump of the TCP sockets in no state at all: the answer is empty, but the kernel must have a handler.
Feature probe_sock_diag() {
    constexpr std::string_view tried = "dumping TCP sockets by NETLINK_SOCK_DIAG";
    const Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!fd)
        return outcome(feature::sock_diag, tried, errno);
    struct {
        nlmsghdr header;
        inet_diag_req_v2 request;
    } message{};
    message.header.nlmsg_len = sizeof(message);
    message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.request.sdiag_family = AF_INET;
    message.request.sdiag_protocol = IPPROTO_TCP;
    if (::send(fd.get(), &message, sizeof(message), 0) < 0)
        return outcome(feature::sock_diag, tried, errno);
    // The kernel puts the first part of the answer into the queue before send(2) returns.
    alignas(nlmsghdr) std::array<char, 16 * 1024> buffer;
    const ssize_t size = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size < static_cast<ssize_t>(sizeof(nlmsghdr)))
        return outcome(feature::sock_diag, tried, size < 0 ? errno : EBADMSG);
    const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data());
    int error = 0;
    if (header->nlmsg_type == NLMSG_ERROR)
        error = -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
    return outcome(feature::sock_diag, tried, error);
}

} // namespace

Features probe_features(const std::string& bpffs_path) {
    const LibbpfSilence silence;
    const Program cls = load_program(BPF_PROG_TYPE_SCHED_CLS);
    const Program xdp = load_program(BPF_PROG_TYPE_XDP);
    const auto page = static_cast<unsigned>(::sysconf(_SC_PAGESIZE));
    Features result;
    result.push_back(probe_map(feature::bpf, "ARRAY", BPF_MAP_TYPE_ARRAY, 4, 8, 1, 0));
    result.push_back(probe_mmap_array());
    result.push_back(probe_map(feature::ringbuf, "RINGBUF", BPF_MAP_TYPE_RINGBUF, 0, 0, page, 0));
    result.push_back(
        probe_map(feature::lpm_trie, "LPM_TRIE", BPF_MAP_TYPE_LPM_TRIE, 8, 8, 1, BPF_F_NO_PREALLOC));
    result.push_back(outcome(feature::sched_cls, "loading a sched_cls program", cls.error));
    result.push_back(outcome(feature::xdp, "loading an xdp program", xdp.error));
    result.push_back(probe_tcx(cls));
    result.push_back(probe_attach(feature::tc, "attaching by clsact and cls_bpf to a scratch namespace's lo",
                                  cls, attach_tc));
    result.push_back(probe_attach(
        feature::xdp_link, "attaching by a generic XDP link to a scratch namespace's lo", xdp, attach_xdp));
    result.push_back(probe_live_frames());
    result.push_back(probe_sk_lookup());
    result.push_back(probe_divert());
    result.push_back(probe_bpffs(bpffs_path));
    result.push_back(probe_sock_diag());
    for (Feature& one : result)
        if (switched_off(one.name))
            one = {.name = one.name, .available = false, .how = off_text};
    return result;
}

const Feature* find_feature(const Features& features, std::string_view name) {
    const auto it = std::ranges::find(features, name, &Feature::name);
    return it == features.end() ? nullptr : &*it;
}

std::string best_hook(const Features& features) {
    for (const std::string_view name : {feature::tcx, feature::tc})
        if (const Feature* found = find_feature(features, name); found && found->available)
            return std::string(name);
    return "";
}

nlohmann::json features_to_json(const Features& features) {
    nlohmann::json result = nlohmann::json::array();
    for (const Feature& one : features)
        result.push_back({{"name", one.name}, {"available", one.available}, {"how", one.how}});
    return result;
}

} // namespace syngate
