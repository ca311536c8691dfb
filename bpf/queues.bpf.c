// SPDX-License-Identifier: GPL-2.0-only
/*
 * The queues of every listening socket of this network namespace: what the drain waits for. sock_diag
 * shows a listener's accept queue but not its half-open connections; those it finds only by walking the
 * table of all connections, which takes milliseconds on a busy host. An iterator meets the listeners first.
 */
#include <vmlinux.h>
#include <syngate/abi.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define TCP_LISTEN 10

/* Only the members that are read; CO-RE finds them by name in the running kernel. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__s64 counter;
} atomic64_t;

struct request_sock_queue {
	atomic_t qlen;
	atomic_t young;
};

struct sock_common {
	volatile unsigned char skc_state;
	atomic64_t skc_cookie;
};

struct sock {
	__u32 sk_ack_backlog;
};

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

SEC("iter/tcp")
int syngate_queues(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;

	if (!sk || sk->skc_state != TCP_LISTEN)
		return 0;

	struct inet_connection_sock *icsk = (void *)sk;
	struct syngate_queue queue = {
		.cookie = sk->skc_cookie.counter,
		.half_open = BPF_CORE_READ(icsk, icsk_accept_queue.qlen.counter),
		.young = BPF_CORE_READ(icsk, icsk_accept_queue.young.counter),
		.accept = BPF_CORE_READ((struct sock *)sk, sk_ack_backlog),
	};

	bpf_seq_write(ctx->meta->seq, &queue, sizeof(queue));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
