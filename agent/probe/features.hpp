// SPDX-License-Identifier: GPL-2.0-or-later
// What this kernel lets this process do, found by doing it, never by its version: distributions backport,
// and seccomp, lockdown and capabilities say no where the version says yes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace syngate {

struct Feature {
    std::string name; // feature:: below
    bool available = false;
    std::string how; // one line: what was tried and what the kernel said
};
using Features = std::vector<Feature>;

namespace feature {
inline constexpr std::string_view bpf = "bpf";               // bpf(2) and array maps
inline constexpr std::string_view mmap_array = "mmap_array"; // array maps in our address space
inline constexpr std::string_view ringbuf = "ringbuf";
inline constexpr std::string_view lpm_trie = "lpm_trie";
inline constexpr std::string_view sched_cls = "sched_cls"; // loading such a program
inline constexpr std::string_view xdp = "xdp";             // loading such a program
inline constexpr std::string_view tcx = "tcx";
inline constexpr std::string_view tc = "tc";                   // clsact and cls_bpf
inline constexpr std::string_view xdp_link = "xdp_link";       // generic XDP by a link
inline constexpr std::string_view live_frames = "live_frames"; // frames put into the stack (replay)
inline constexpr std::string_view bpffs = "bpffs";             // where maps are pinned
inline constexpr std::string_view sock_diag = "sock_diag";
inline constexpr std::string_view sk_lookup = "sk_lookup"; // steering to chosen sockets (flip, intercept)
inline constexpr std::string_view divert = "divert";       // the program of transparent proxying
// What mode iptables can make use of.
inline constexpr std::string_view iptables_nft = "iptables_nft"; // the programs, and the kernel's part
inline constexpr std::string_view iptables_legacy = "iptables_legacy";
inline constexpr std::string_view ip6tables = "ip6tables";
inline constexpr std::string_view xt_multiport = "xt_multiport";
inline constexpr std::string_view xt_recent = "xt_recent";
inline constexpr std::string_view xt_time = "xt_time";
inline constexpr std::string_view nfqueue = "nfqueue"; // the target and the queue
inline constexpr std::string_view xt_addrtype = "xt_addrtype";
inline constexpr std::string_view xt_socket = "xt_socket";
inline constexpr std::string_view xt_mark = "xt_mark";
inline constexpr std::string_view xt_tproxy = "xt_TPROXY";
inline constexpr std::string_view xt_dnat = "xt_DNAT"; // with conntrack
inline constexpr std::string_view all[] = {
    bpf,          mmap_array,      ringbuf,     lpm_trie,     sched_cls, xdp,       tcx,
    tc,           xdp_link,        live_frames, bpffs,        sock_diag, sk_lookup, divert,
    iptables_nft, iptables_legacy, ip6tables,   xt_multiport, xt_recent, xt_time,   nfqueue,
    xt_addrtype,  xt_socket,       xt_mark,     xt_tproxy,    xt_dnat};
} // namespace feature

// Leaves nothing behind and changes nothing: what must be attached is attached in a network namespace
// that a child process makes for it (without CAP_SYS_ADMIN: not probed, and taken as available).
// bpffs_path need not exist. Forks; at most some seconds, usually tens of milliseconds.
Features probe_features(const std::string& bpffs_path = "/sys/fs/bpf/syngate");

// Null when there is no feature of this name.
const Feature* find_feature(const Features& features, std::string_view name);
// "tcx", else "tc", else "". XDP is never the best: it is for floods, and asked for by name.
std::string best_hook(const Features& features);
// An array of {name, available, how}.
nlohmann::json features_to_json(const Features& features);

} // namespace syngate
