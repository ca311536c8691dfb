// SPDX-License-Identifier: GPL-2.0-or-later
// What one benchmark found, as a file: everything that was measured, round by round. Medians, ratios and
// verdicts are made of it by bench/render, so that they can be made again.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace syngate::bench {

using Json = nlohmann::json;

struct Settings {
    bool quick = false; // less of everything, by the same code
    std::string out;    // directory of the results
};

class Result {
public:
    Result(const Settings& settings, const std::string& name);

    Json& parameters() { return json_["parameters"]; }
    // A list of its own for each kind of thing that is measured.
    void add(const std::string& list, Json row);
    // What this machine cannot do, and why: shown in the tables, never left out in silence.
    void impossible(const std::string& what, const std::string& why);
    // Replaces the file of an earlier run.
    void write() const;

private:
    std::string path_;
    Json json_;
};

// A line on standard error.
void progress(const std::string& text);

} // namespace syngate::bench
