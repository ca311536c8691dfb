// SPDX-License-Identifier: GPL-2.0-or-later
#include "scale/scale.hpp"

#include "common/benchmarks.hpp"

namespace syngate::bench {

void measure_scale(const Settings& settings) {
    Result result(settings, "scale");
    measure_ports(settings, result);
    measure_parked(settings, result);
    measure_interfaces(settings, result);
    result.write();
}

} // namespace syngate::bench
