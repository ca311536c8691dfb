// SPDX-License-Identifier: GPL-2.0-or-later
// The verifier is stricter with who has no CAP_PERFMON, and what a compiler makes of a source is what it
// sees: every program is loaded with nothing but the documented capabilities.
#include "gate/divert_program.hpp"
#include "gate/gate_maps.hpp"
#include "prog/world.hpp"
#include "steer/steer_maps.hpp"

#include <cap-ng.h>
#include <cstdio>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace syngate::prog {

namespace {

Result<void> load_all(const std::vector<Intercept>& rules) {
    const DivertOptions options{.mark = 1, .mask = 1, .intercepts = rules};
    const auto gate = GateMaps::load({.owner_id = 1,
                                      .park_memory = 4096,
                                      .can_hold = true,
                                      .for_xdp = true,
                                      .intercepts = options.intercepts});
    if (!gate)
        return std::unexpected(gate.error());
    if (const auto divert = DivertProgram::load(options, **gate); !divert)
        return std::unexpected(divert.error());
    if (const auto steer = SteerMaps::load(1); !steer)
        return std::unexpected(steer.error());
    return {};
}

// 0: all were loaded.
int load_without_perfmon() {
    capng_get_caps_process();
    capng_clear(CAPNG_SELECT_CAPS);
    capng_updatev(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED), CAP_BPF,
                  CAP_NET_ADMIN, -1);
    if (capng_apply(CAPNG_SELECT_CAPS) != 0)
        return 2;
    for (const auto& rules : {std::vector<Intercept>{}, *parse_intercepts("80=8080")})
        if (const auto r = load_all(rules); !r) {
            std::fprintf(stderr, "%s\n", r.error().message.c_str());
            return 1;
        }
    return 0;
}

} // namespace

TEST(Load, EveryProgramLoadsWithoutPerfmon) {
    if (const auto world = enter_world(); !world && world.error().exit == Exit::impossible)
        GTEST_SKIP() << world.error().message;
    const pid_t child = fork();
    if (child == 0)
        _exit(load_without_perfmon());
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "the reason is above";
}

} // namespace syngate::prog
