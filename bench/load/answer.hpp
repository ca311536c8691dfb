// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "load/outcome.hpp"

#include <array>
#include <cstdint>
#include <string_view>

namespace syngate::load {

// As much of an HTTP/1.x answer as tells a whole one from a cut one. Keeps no more than the beginning of one
// header line, so that many thousands of them may be under way.
class Answer {
public:
    void feed(std::string_view bytes);

    // Header and Content-Length bytes of the body are there; without a length only EOF ends an answer.
    [[nodiscard]] bool complete() const { return in_body_ && length_ >= 0 && body_ >= length_; }
    // The verdict if the answer ends here.
    [[nodiscard]] Outcome at_end() const;

private:
    void end_of_line();

    // "Content-Length: " and 19 digits fit; the rest of a longer line is of no interest.
    std::array<char, 40> line_{};
    std::uint8_t line_length_ = 0;
    bool anything_ = false;
    bool status_seen_ = false;
    bool success_ = false;
    bool in_body_ = false;
    std::int64_t length_ = -1;
    std::int64_t body_ = 0;
};

} // namespace syngate::load
