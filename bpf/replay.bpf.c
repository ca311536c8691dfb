// SPDX-License-Identifier: GPL-2.0-only
/*
 * Never attached: run by BPF_PROG_RUN with BPF_F_TEST_XDP_LIVE_FRAMES, so that a parked frame
 * enters the stack as if its interface had just received it.
 */
#include <vmlinux.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int syngate_replay(struct xdp_md *xdp __attribute__((unused)))
{
	return XDP_PASS;
}

/* Asks whether frames can be replayed on a device, and sends nothing. */
SEC("xdp")
int syngate_probe(struct xdp_md *xdp __attribute__((unused)))
{
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
