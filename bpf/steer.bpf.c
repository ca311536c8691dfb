// SPDX-License-Identifier: GPL-2.0-only
/*
 * Steering: an sk_lookup program that chooses the listening socket of a new connection, and the
 * iterator that puts listening sockets where it can choose them. It never drops: what it does not
 * steer goes by the kernel's own rules.
 */
#include <vmlinux.h>
#include <syngate/abi.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <stdbool.h>

#define AF_INET 2
#define NEXT_TCP 6
#define TCP_LISTEN 10
#define SK_PASS 1

#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024
#define BPF_SK_LOOKUP_F_NO_REUSEPORT 2

/* A socket whose slot is empty has been closed; the next ones are tried, as many as this. */
#define SLOTS_TRIED 16

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__s64 counter;
} atomic64_t;

struct sock_common {
	volatile unsigned char skc_state;
	atomic64_t skc_cookie;
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

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syngate_steer);
} steer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct syngate_steer_key);
	__type(value, struct syngate_steer_rule);
} steer_rules SEC(".maps");

/* The value is the socket's cookie where user space or bpftool reads it. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, SYNGATE_STEER_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct syngate_steer_verdicts);
} steer_verdicts SEC(".maps");

/* Cookies of the sockets to capture, and the slots that they shall have. Empty but for the moment. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SYNGATE_STEER_SLOTS);
	__type(key, __u64);
	__type(value, __u32);
} wanted SEC(".maps");

static __always_inline void count(__u32 reason)
{
	__u32 zero = 0;
	__u64 *counters = bpf_map_lookup_elem(&steer_verdicts, &zero);

	if (counters && reason < SYNGATE_STEER_REASON_COUNT)
		counters[reason]++;
}

struct lookup {
	bool ipv4;
	__u32 port;
	__u32 address[4]; /* local, IPv4 as ::ffff:a.b.c.d */
	__u32 hash;
};

/*
 * Reads the context with constant offsets only, which the verifier wants and a compiler that merges
 * branches spoils: each field once, whatever the family; the other family's are 0.
 */
static __always_inline void read_lookup(struct bpf_sk_lookup *ctx, struct lookup *lookup)
{
	volatile struct bpf_sk_lookup *from = ctx;
	__u32 ip4 = from->local_ip4, first = from->local_ip6[0], second = from->local_ip6[1],
	      third = from->local_ip6[2], fourth = from->local_ip6[3];
	__u32 remote = from->remote_ip4 ^ from->remote_ip6[0] ^ from->remote_ip6[1] ^ from->remote_ip6[2] ^
		       from->remote_ip6[3];

	lookup->ipv4 = from->family == AF_INET;
	lookup->port = from->local_port;
	lookup->address[0] = first;
	lookup->address[1] = second;
	lookup->address[2] = lookup->ipv4 ? bpf_htonl(0xffff) : third;
	lookup->address[3] = lookup->ipv4 ? ip4 : fourth;

	/* Neighbouring ports of one client must not share a socket: murmur3's last steps. */
	__u32 h = remote ^ lookup->address[3] ^ ((__u32)from->remote_port << 16 | lookup->port);

	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	lookup->hash = h ^ h >> 16;
}

/* The rule for exactly this address, else the one for every address. */
static __always_inline struct syngate_steer_rule *find_rule(const struct lookup *lookup, __u32 generation)
{
	struct syngate_steer_key key = {.generation = generation, .port = lookup->port};
	struct syngate_steer_rule *rule;

	__builtin_memcpy(key.address, lookup->address, sizeof(key.address));
	rule = bpf_map_lookup_elem(&steer_rules, &key);
	if (rule)
		return rule;
	__builtin_memset(key.address, 0, sizeof(key.address));
	if (lookup->ipv4)
		key.address[10] = key.address[11] = 0xff;
	return bpf_map_lookup_elem(&steer_rules, &key);
}

/* Assigns one of the rule's sockets, or none when all that are tried have been closed. */
static __always_inline int assign(struct bpf_sk_lookup *ctx, const struct syngate_steer_rule *rule,
				  __u32 hash)
{
	__u32 sockets_count = rule->sockets, first = rule->first_slot, chosen;

	if (!sockets_count)
		return SYNGATE_STEER_REASON_exempt;
	chosen = hash % sockets_count;
	for (__u32 tried = 0; tried < SLOTS_TRIED; tried++) {
		if (tried == sockets_count)
			break;
		__u32 slot = first + (chosen + tried) % sockets_count;
		struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &slot);

		if (!sk)
			continue;

		long refused = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);

		bpf_sk_release(sk);
		return refused ? SYNGATE_STEER_REASON_refused : SYNGATE_STEER_REASON_steered;
	}
	return SYNGATE_STEER_REASON_no_listener;
}

static __always_inline int decide(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0;
	struct syngate_steer *word = bpf_map_lookup_elem(&steer, &zero);

	if (!word)
		return SYNGATE_STEER_REASON_idle;

	__u32 generation = *(volatile __u32 *)&word->active;
	if (!generation)
		return SYNGATE_STEER_REASON_idle;
	if (ctx->protocol != NEXT_TCP)
		return SYNGATE_STEER_REASON_not_tcp;
	if (ctx->sk)
		return SYNGATE_STEER_REASON_selected_before;

	struct lookup lookup;
	read_lookup(ctx, &lookup);

	struct syngate_steer_rule *rule = find_rule(&lookup, generation);
	if (!rule)
		return SYNGATE_STEER_REASON_no_rule;

	int reason = assign(ctx, rule, lookup.hash);
	if (reason == SYNGATE_STEER_REASON_steered)
		__sync_fetch_and_add(&rule->steered, 1);
	else if (reason == SYNGATE_STEER_REASON_no_listener)
		__sync_fetch_and_add(&rule->no_listener, 1);
	return reason;
}

SEC("sk_lookup")
int syngate_steer(struct bpf_sk_lookup *ctx)
{
	count(decide(ctx));
	return SK_PASS;
}

/*
 * Meets every listening socket of the network namespace and puts those that are wanted into their
 * slots. What it met is written down, so that the reader need not let it go on to the connections.
 */
SEC("iter/tcp")
int syngate_capture(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;

	if (!sk || sk->skc_state != TCP_LISTEN)
		return 0;

	struct syngate_captured captured = {.cookie = sk->skc_cookie.counter};
	__u32 *slot = bpf_map_lookup_elem(&wanted, &captured.cookie);

	if (!slot)
		return 0;
	captured.slot = *slot;
	captured.error = bpf_map_update_elem(&sockets, &captured.slot, sk, 0);
	bpf_seq_write(ctx->meta->seq, &captured, sizeof(captured));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
