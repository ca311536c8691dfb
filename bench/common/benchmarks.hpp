// SPDX-License-Identifier: GPL-2.0-or-later
// Each runs in a sandbox of its own and writes one result. Throws where it cannot go on.
#pragma once

#include "common/result.hpp"

namespace syngate::bench {

void measure_reloads(const Settings& settings);
void measure_shards(const Settings& settings);
void measure_restarts(const Settings& settings);
void measure_packets(const Settings& settings);
void measure_flood(const Settings& settings);
void measure_idle(const Settings& settings);
void measure_steering(const Settings& settings);
void measure_diverting(const Settings& settings);
void measure_scale(const Settings& settings);
void measure_footprint(const Settings& settings);
// A container engine is not to be reached from a sandbox: what stands beside the numbers, without them.
void begin_image(const Settings& settings);

} // namespace syngate::bench
