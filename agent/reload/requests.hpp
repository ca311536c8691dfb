// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "reload/outcome.hpp"

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace syngate {

// Reloads that were asked for. What comes while one runs is joined into one more, and everybody who asked
// gets the outcome of the run that covers the request.
class ReloadRequests {
public:
    using Answer = std::function<void(const Outcome&)>;
    struct Batch {
        bool restart = false; // somebody asked for a full restart, which reloads as well
        std::vector<std::string> reasons;
        std::vector<Answer> answers;
    };

    // reason for the log: "SIGHUP", "control socket", "watch"
    void add(bool restart, std::string reason, Answer answer = {}) {
        pending_ = true;
        batch_.restart |= restart;
        batch_.reasons.push_back(std::move(reason));
        if (answer)
            batch_.answers.push_back(std::move(answer));
    }
    [[nodiscard]] bool pending() const { return pending_; }
    Batch take() {
        pending_ = false;
        return std::exchange(batch_, {});
    }

private:
    bool pending_ = false;
    Batch batch_;
};

} // namespace syngate
