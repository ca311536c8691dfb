// SPDX-License-Identifier: GPL-2.0-or-later
#include "reload/outcome.hpp"

#include "gate/gate_json.hpp"

#include <fmt/format.h>

namespace syngate {

void StepTimer::done(std::string name, std::string note) {
    const Time now = Clock::now();
    outcome_.steps.push_back({std::move(name), now - begun_, std::move(note)});
    begun_ = now;
}

std::string to_text(const Outcome& outcome) {
    std::string text = outcome.action + (outcome.ok() ? " done" : " failed");
    if (!outcome.message.empty())
        text += ": " + outcome.message;
    if (outcome.gated.empty() && outcome.flipped.empty())
        text += "; no window, nothing that is covered changed hands";
    else if (outcome.gated.empty())
        text += fmt::format("; flipped {} with no window: {} half-open, {} queued",
                            format_ports(outcome.flipped), outcome.half_open, outcome.queued);
    else
        text += fmt::format("; window {} on {}: {} half-open, {} queued, {} parked, {} replayed, {} dropped",
                            format_duration(outcome.window.length), format_ports(outcome.gated),
                            outcome.half_open, outcome.queued, outcome.window.parked, outcome.window.replayed,
                            outcome.window.dropped);
    if (outcome.window.replay_failed || outcome.window.expired || outcome.left)
        text += fmt::format(", {} could not be replayed, {} expired, {} not waited for",
                            outcome.window.replay_failed, outcome.window.expired, outcome.left);
    for (std::size_t i = 0; i < outcome.steps.size(); ++i)
        text += fmt::format("{}{} {}{}", i == 0 ? "; " : ", ", outcome.steps[i].name,
                            format_duration(outcome.steps[i].took),
                            outcome.steps[i].note.empty() ? "" : fmt::format(" ({})", outcome.steps[i].note));
    return text;
}

nlohmann::json to_json(const Outcome& outcome) {
    nlohmann::json steps = nlohmann::json::array();
    for (const Step& step : outcome.steps)
        steps.push_back({{"name", step.name}, {"us", to_us(step.took)}, {"note", step.note}});
    nlohmann::json json = to_json(outcome.window);
    json.update({{"ok", outcome.ok()},
                 {"exit", static_cast<int>(outcome.exit)},
                 {"action", outcome.action},
                 {"message", outcome.message},
                 {"steps", std::move(steps)},
                 {"gated", outcome.gated.empty() ? "" : format_ports(outcome.gated)},
                 {"flipped", outcome.flipped.empty() ? "" : format_ports(outcome.flipped)},
                 {"half_open", outcome.half_open},
                 {"queued", outcome.queued},
                 {"left", outcome.left}});
    return json;
}

} // namespace syngate
