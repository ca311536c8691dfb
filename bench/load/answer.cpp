// SPDX-License-Identifier: GPL-2.0-or-later
#include "load/answer.hpp"

#include <algorithm>
#include <charconv>
#include <strings.h>

namespace syngate::load {

void Answer::feed(std::string_view bytes) {
    anything_ = anything_ || !bytes.empty();
    while (!bytes.empty() && !in_body_) {
        const auto end = bytes.find('\n');
        const auto part = bytes.substr(0, end);
        const auto room = line_.size() - line_length_;
        const auto taken = std::min(room, part.size());
        std::copy_n(part.begin(), taken, line_.begin() + line_length_);
        line_length_ = static_cast<std::uint8_t>(line_length_ + taken);
        if (end == std::string_view::npos)
            return;
        bytes.remove_prefix(end + 1);
        end_of_line();
    }
    body_ += static_cast<std::int64_t>(bytes.size());
}

void Answer::end_of_line() {
    std::string_view line(line_.data(), line_length_);
    line_length_ = 0;
    if (!line.empty() && line.back() == '\r')
        line.remove_suffix(1);
    if (!status_seen_) {
        status_seen_ = true;
        success_ = line.starts_with("HTTP/1.") && line.size() >= 12 && line[8] == ' ' && line[9] == '2';
        return;
    }
    if (line.empty()) {
        in_body_ = true;
        return;
    }
    constexpr std::string_view name = "content-length:";
    if (line.size() > name.size() && ::strncasecmp(line.data(), name.data(), name.size()) == 0) {
        line.remove_prefix(name.size());
        line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
        std::int64_t length = -1;
        if (std::from_chars(line.data(), line.data() + line.size(), length).ec == std::errc{})
            length_ = length;
    }
}

Outcome Answer::at_end() const {
    if (!anything_)
        return Outcome::empty;
    if (!in_body_ || (length_ >= 0 && body_ < length_))
        return Outcome::short_;
    return success_ ? Outcome::ok : Outcome::bad_status;
}

} // namespace syngate::load
