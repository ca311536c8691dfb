// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

namespace syngate {

// While one lives, libbpf's warnings (with the verifier's log in them) are kept instead of printed.
// One at a time; libbpf's print function is the process's.
class LibbpfMessages {
public:
    LibbpfMessages();
    ~LibbpfMessages();
    LibbpfMessages(const LibbpfMessages&) = delete;
    LibbpfMessages& operator=(const LibbpfMessages&) = delete;
    // The last lines, joined with "; ", at most about 1,000 characters.
    [[nodiscard]] std::string text() const;
};

} // namespace syngate
