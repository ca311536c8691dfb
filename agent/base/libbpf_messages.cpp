// SPDX-License-Identifier: GPL-2.0-or-later
#include "base/libbpf_messages.hpp"

#include <bpf/libbpf.h>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace syngate {
namespace {

constexpr std::size_t text_max = 1000;
std::string kept;
libbpf_print_fn_t previous = nullptr;

__attribute__((format(printf, 2, 0))) int keep(libbpf_print_level level, const char* format, va_list args) {
    if (level == LIBBPF_DEBUG)
        return 0;
    // A verifier's log comes as one line of many kilobytes, and says what is wrong at its end.
    char* line = nullptr;
    const int n = vasprintf(&line, format, args);
    if (n < 0)
        return n;
    kept += line;
    std::free(line);
    if (kept.size() > 4 * text_max)
        kept.erase(0, kept.size() - 4 * text_max);
    return n;
}

} // namespace

LibbpfMessages::LibbpfMessages() {
    kept.clear();
    previous = libbpf_set_print(keep);
}

LibbpfMessages::~LibbpfMessages() {
    libbpf_set_print(previous);
}

std::string LibbpfMessages::text() const {
    std::string joined;
    for (const char c : kept)
        joined += c == '\n' ? "; " : std::string(1, c);
    while (joined.ends_with("; "))
        joined.resize(joined.size() - 2);
    return joined.size() > text_max ? "..." + joined.substr(joined.size() - text_max) : joined;
}

} // namespace syngate
