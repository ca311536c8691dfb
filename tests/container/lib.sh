# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by tests/container/run: the scene, the containers, and what is expected of them.
#
# The scene is two network namespaces and a wire: `host_ns` is the machine on which the container runs, `client_ns` its
# clients. A container "on --net=host" shares host_ns, one "with a network of its own" gets host_ns as that.

readonly server4=10.91.7.1 server6=fd91:7::1
readonly patience_s=60
# What the documentation asks for.
readonly documented=(--cap-add=BPF --cap-add=NET_ADMIN)

network=host # of the next container

# Of everything that podman does here: the limits are this machine's, the seccomp profile is the engine's default one,
# in which podman 4.3 is taught what later versions know, that CAP_BPF is for bpf(2).
configure_podman() {
    deploy/container/seccomp-profile >"$work/seccomp.json"
    cat >"$work/containers.conf" <<CONF
[containers]
seccomp_profile = "$work/seccomp.json"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
CONF
    export CONTAINERS_CONF=$work/containers.conf
}

fail() {
    local container
    printf 'FAILED: %s\n' "$*"
    for container in "${containers[@]}"; do
        printf -- '--- log of %s\n' "$container"
        podman logs --tail 60 "$container" 2>&1 || true
    done
    exit 1
}

# until TEXT COMMAND...: asks again until it is so.
until_so() {
    local what=$1 deadline=$((SECONDS + patience_s))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "not within $patience_s s: $what"
        read -rt 0.05 <>"$idle" || true # nothing announces all of these
    done
}

make_scene() {
    ip netns add "$host_ns"
    ip netns add "$client_ns"
    ip -n "$host_ns" link add up0 type veth peer name up0 netns "$client_ns"
    local ns
    for ns in "$host_ns" "$client_ns"; do
        ip netns exec "$ns" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.up0.accept_dad=0 \
            net.ipv4.ip_local_port_range="10000 65000"
        ip -n "$ns" link set lo up
        ip -n "$ns" link set up0 up
    done
    ip -n "$host_ns" address add "$server4/24" dev up0
    ip -n "$host_ns" address add "$server6/64" dev up0 nodad
    ip -n "$client_ns" address add 10.91.7.2/24 dev up0
    ip -n "$client_ns" address add fd91:7::2/64 dev up0 nodad
    mkdir -p "$work/cfg"
    chmod 755 "$work" "$work/cfg"
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# Everything of the kind that the old image left behind, of the namespace that is the host here.
state_of_host() {
    in_host ip -4 rule show
    in_host ip -6 rule show
    in_host ip -4 route show table all
    in_host ip -6 route show table all | grep -v ' dev lo .*local' | sed 's/ expires [0-9a-z]*//'
    in_host tc qdisc show | sed 's/ refcnt [0-9]*//'
    in_host tc filter show dev up0 ingress 2>/dev/null || true
    in_host bpftool net show 2>/dev/null | grep -v '^$' || true
    local save
    for save in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do
        in_host "$save" 2>/dev/null | grep '^-' || true
    done
    in_host sysctl -a --pattern 'net\.ipv[46]\.(ip_nonlocal_bind|ip_forward|conf\.(all|up0|lo)\.(rp_filter|forwarding|route_localnet|accept_local))' 2>/dev/null || true
}

in_host() {
    nsenter --net="/run/netns/$host_ns" -- "$@"
}

# in_client_background COMMAND...: $! is the command's own process, not a shell's around it.
in_client_background() {
    (exec nsenter --net="/run/netns/$client_ns" -- "$@") <&0 & # else its standard input would be /dev/null
}

in_client() {
    nsenter --net="/run/netns/$client_ns" -- "$@"
}

# A client behind another interface of the host, 10.91.8.2: the backends, who are the scene's client, answer it by
# the host.
make_far_client() {
    far_ns=$scene-far
    namespaces+=("$far_ns")
    ip netns add "$far_ns"
    ip -n "$host_ns" link add up1 type veth peer name up0 netns "$far_ns"
    ip -n "$host_ns" address add 10.91.8.1/24 dev up1
    in_host sysctl -qw net.ipv6.conf.up1.disable_ipv6=1 # its address would come when the state has been looked at
    ip -n "$host_ns" link set up1 up
    ip -n "$far_ns" link set up0 up
    ip -n "$far_ns" address add 10.91.8.2/24 dev up0
    ip -n "$client_ns" route add 10.91.8.0/24 via "$server4"
}

in_far() {
    nsenter --net="/run/netns/$far_ns" -- "$@"
}

remove_far_client() {
    ip netns delete "$far_ns"
    ip -n "$client_ns" route delete 10.91.8.0/24
}

# run_container NAME [PODMAN OPTIONS...] -- [ARGUMENTS...]: in the background, on the network of the host.
run_container() {
    local name=$1
    local -a options=()
    shift
    while (($#)) && [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift || true
    containers+=("$name")
    # Started inside host_ns, --network host is that namespace.
    local -a engine=(podman)
    [[ $network != host ]] || engine=(in_host podman)
    "${engine[@]}" run --detach --name "$name" --network "$network" \
        --volume "$work/cfg:/usr/local/etc/haproxy:ro" "${options[@]}" "$image" "$@" >/dev/null ||
        fail "podman could not run $name"
}

# serves NAME: the agent says that the server does.
serves() {
    [[ $(status "$1" '["server"]["pid"]' 2>/dev/null) =~ ^[0-9]+$ ]] && [[ $(status "$1" '["busy"]') == False ]]
}

# status NAME INDEX: of the agent's own answer.
status() {
    podman exec "$1" syngate status --json | python3 -c "import json, sys; print(json.load(sys.stdin)$2)"
}

start() {
    run_container "$@"
    until_so "$1 serves" serves "$1"
}

reloads() {
    status "$1" '["reloads"]["done"]'
}

has_reloaded() {
    (($(reloads "$1") >= $2)) && serves "$1"
}

# reload_by WAY NAME: and waits for the end of exactly that one.
reload_by() {
    local way=$1 name=$2 before
    before=$(reloads "$name")
    case $way in
    HUP | USR2) podman kill --signal "$way" "$name" >/dev/null ;;
    exec) podman exec "$name" syngate reload >>"$work/reloads" 2>&1 || fail "syngate reload: $(tail -n 1 "$work/reloads")" ;;
    file) # as most editors do: a new file in the old one's place
        cp "$work/cfg/haproxy.cfg" "$work/cfg/.haproxy.cfg.new"
        mv "$work/cfg/.haproxy.cfg.new" "$work/cfg/haproxy.cfg"
        ;;
    write) printf '# written in place\n' >>"$work/cfg/haproxy.cfg" ;;
    *) fail "no way to reload: $way" ;;
    esac
    until_so "$name reloads by $way" has_reloaded "$name" $((before + 1))
    [[ $(status "$name" '["last"]["ok"]') == True ]] || fail "the reload by $way failed: $(status "$name" '["last"]')"
}

# start_load RATE TO...: until finish_load, which ends the process that holds the load's standard input open. Were it
# this shell, podman's monitors would inherit it.
start_load() {
    local rate=$1 to
    local -a targets=()
    shift
    for to in "$@"; do
        targets+=(--to "$to")
    done
    rm -f "$work/load.in"
    mkfifo "$work/load.in"
    sleep 300 >"$work/load.in" &
    load_in=$!
    in_client_background "$build/syngate-load" --json --rate "$rate" "${targets[@]}" --until-stdin-closes \
        --duration 240s --progress <"$work/load.in" >"$work/load.json" 2>"$work/load.err"
    load_pid=$!
    until_so "the load starts" test -s "$work/load.err"
}

# Sets started, failed and slowest_ms.
finish_load() {
    kill "$load_in"
    wait "$load_in" 2>/dev/null || true
    load_in=
    wait "$load_pid" || true
    load_pid=
    read -r started failed slowest_ms < <(python3 - "$work/load.json" <<'PYTHON'
import json, sys
report = json.load(open(sys.argv[1]))
print(report["started"], report["failed"], round(report["latency_ms"]["max"]))
PYTHON
    ) || fail "the load generator has no report: $(cat "$work/load.err")"
}

expect_no_failure() {
    finish_load
    printf '%s: %s connections, %s failed, slowest %s ms\n' "$1" "$started" "$failed" "$slowest_ms"
    ((started > 100)) || fail "$1: only $started connections"
    ((failed == 0)) || fail "$1: $failed of $started connections failed: $(cat "$work/load.json")"
}

expect_status() {
    local wanted=$1 got=0
    shift
    "$@" >"$work/output" 2>&1 || got=$?
    ((got == wanted)) || fail "'$*' ended with status $got instead of $wanted: $(cat "$work/output")"
}

expect_output() {
    grep -q -- "$1" "$work/output" || fail "not said: '$1', but: $(cat "$work/output")"
}

exit_status_of() {
    podman wait "$1" 2>/dev/null
}

cleanup() {
    set +e
    local container child
    for child in $load_in $load_pid "${helpers[@]}"; do
        kill "$child" 2>/dev/null && wait "$child" 2>/dev/null
    done
    for container in "${pods[@]}"; do
        podman pod rm --force --time 0 "$container" >/dev/null 2>&1
        podman volume rm --force "$container" >/dev/null 2>&1
    done
    for container in "${containers[@]}"; do
        podman rm --force --time 0 "$container" >/dev/null 2>&1
    done
    for child in "$host_ns" "$client_ns" "${namespaces[@]}"; do
        ip netns delete "$child" 2>/dev/null
    done
    rm -rf "$work"
}
