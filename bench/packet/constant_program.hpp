// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "base/fd.hpp"

#include <linux/bpf.h>

namespace syngate::bench {

// A program that returns this and looks at nothing. Throws if the kernel does not take it.
Fd load_constant(bpf_prog_type type, int verdict);

} // namespace syngate::bench
