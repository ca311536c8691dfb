// SPDX-License-Identifier: GPL-2.0-or-later
// A file with the number of the server's process, for those who look for one.
#pragma once

#include "base/result.hpp"

#include <string>
#include <sys/types.h>

namespace syngate {

class PidFile {
public:
    explicit PidFile(std::string path) : path_(std::move(path)) {} // "": none
    ~PidFile();                                                    // removes it
    PidFile(const PidFile&) = delete;
    PidFile& operator=(const PidFile&) = delete;

    // Whoever reads sees the old number or the new one.
    Result<void> write(pid_t pid);

private:
    std::string path_;
    pid_t written_ = 0; // 0: nothing
};

} // namespace syngate
