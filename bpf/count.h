/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters in a struct of a map, by name. Without CAP_PERFMON the verifier allows no arithmetic on a
 * pointer into a map that differs from path to path, and a compiler makes such arithmetic of branches
 * that only differ in the field: so the field's offset stands in the instruction.
 */
#ifndef SYNGATE_COUNT_H
#define SYNGATE_COUNT_H

/* For per-CPU maps. */
#define COUNT_HERE(counters, field)                                                               \
	do {                                                                                      \
		__u64 sum;                                                                        \
		asm volatile("%0 = *(u64 *)(%1 + %2)\n\t"                                         \
			     "%0 += 1\n\t"                                                        \
			     "*(u64 *)(%1 + %2) = %0"                                             \
			     : "=&r"(sum)                                                         \
			     : "r"(counters), "i"(__builtin_offsetof(typeof(*(counters)), field)) \
			     : "memory");                                                         \
	} while (0)

/* For maps that all CPUs share. */
#define COUNT_SHARED(counters, field)                                                                \
	asm volatile("lock *(u64 *)(%0 + %1) += %2"                                                  \
		     :                                                                               \
		     : "r"(counters), "i"(__builtin_offsetof(typeof(*(counters)), field)), "r"(1ULL) \
		     : "memory")

#define COUNT_CASE(number, field)            \
	case number:                         \
		COUNT_HERE(counters, field); \
		break;

/*
 * The per-CPU map `map` with one `counters_type`, and count(), which adds one to the counter of a reason.
 * `cases`: a COUNT_CASE for each reason.
 */
#define COUNTERS(map, counters_type, cases)                                 \
	struct {                                                            \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                    \
		__uint(max_entries, 1);                                     \
		__type(key, __u32);                                         \
		__type(value, counters_type);                               \
	} map SEC(".maps");                                                 \
                                                                            \
	static __always_inline void count(__u32 reason)                     \
	{                                                                   \
		__u32 zero = 0;                                             \
		counters_type *counters = bpf_map_lookup_elem(&map, &zero); \
                                                                            \
		if (!counters)                                              \
			return;                                             \
		switch (reason) {                                           \
			cases                                               \
		}                                                           \
	}

#endif
