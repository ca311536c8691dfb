// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/result.hpp"

#include "common/benchmarks.hpp"
#include "common/machine.hpp"

#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <stdexcept>

namespace syngate::bench {

Result::Result(const Settings& settings, const std::string& name)
    : path_(fmt::format("{}/{}.json", settings.out, name)), json_{{"benchmark", name},
                                                                  {"quick", settings.quick},
                                                                  {"machine", machine()},
                                                                  {"parameters", Json::object()},
                                                                  {"impossible", Json::array()}} {
    std::filesystem::create_directories(settings.out);
}

void Result::add(const std::string& list, Json row) {
    json_[list].push_back(std::move(row));
}

void Result::impossible(const std::string& what, const std::string& why) {
    constexpr std::size_t most = 300; // what a program said may be long
    const auto shown = why.size() > most ? why.substr(0, most) + "..." : why;
    progress(fmt::format("{}: not possible here: {}", what, shown));
    json_["impossible"].push_back(Json{{"what", what}, {"why", shown}});
}

void Result::write() const {
    const auto fresh = path_ + ".new";
    std::ofstream file(fresh);
    file << json_.dump(1) << '\n';
    file.close();
    if (!file || std::rename(fresh.c_str(), path_.c_str()) != 0)
        throw std::runtime_error("cannot write " + path_);
}

void begin_image(const Settings& settings) {
    Result(settings, "image").write();
}

void progress(const std::string& text) {
    fmt::print(stderr, "{}\n", text);
}

} // namespace syngate::bench
