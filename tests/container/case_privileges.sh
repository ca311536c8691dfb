# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# Each row of the README's table of capabilities, and what is said where one is missing.

none=(--cap-drop=ALL)
readonly server_alone=(--cap-add=SETUID --cap-add=SETGID --cap-add=NET_BIND_SERVICE --cap-add=KILL)

holds() {
    status "$1" '["agent"]["capabilities"]["'"$2"'"]' | tr -d "[],'"
}

reloads_under_load() {
    local name=$1
    start_load 400 "$server4:80" "[$server6]:80"
    reload_by HUP "$name"
    reload_by exec "$name"
    reload_by HUP "$name"
    expect_no_failure "$2"
}

case_privileges() {
    privileges_least
    privileges_iptables
    privileges_transparent
    privileges_stock
    privileges_missing
    privileges_read_only
    privileges_no_new
}

# Nothing but what the table names, on a network of the container's own, and without /sys/fs/bpf.
privileges_least() {
    network="ns:/run/netns/$host_ns" start "$scene-l" "${none[@]}" "${server_alone[@]}" "${documented[@]}" --
    [[ $(status "$scene-l" '["gate"]["mode"]') == bpf ]] || fail "mode $(status "$scene-l" '["gate"]["mode"]')"
    [[ $(status "$scene-l" '["gate"]["no_pins_because"]') == *bpffs* ]] || fail "not said that nothing is pinned"
    reloads_under_load "$scene-l" "BPF and NET_ADMIN"
    # It dropped SETUID, SETGID and NET_BIND_SERVICE, which HAProxy was started with again.
    [[ $(holds "$scene-l" effective) == "CAP_KILL CAP_NET_ADMIN CAP_BPF" ]] || fail "the agent holds $(holds "$scene-l" effective)"
    [[ $(holds "$scene-l" permitted) == "$(holds "$scene-l" effective)" ]] || fail "the agent may take $(holds "$scene-l" permitted)"
    podman exec "$scene-l" grep -E '^Cap(Prm|Eff)' /proc/1/status | awk '{ print $2 }' | sort -u >"$work/output"
    [[ $(cat "$work/output") == 0000008000001020 ]] || fail "the kernel says the agent holds $(cat "$work/output")"
    podman rm --force "$scene-l" >/dev/null 2>&1
    # With the engine's usual ones, which include SETPCAP, no server gets CAP_BPF.
    start "$scene-w" "${documented[@]}" --
    [[ $(holds "$scene-w" server) != *CAP_BPF* ]] || fail "HAProxy may have CAP_BPF"
    reload_by HUP "$scene-w"
    podman exec "$scene-w" sh -c 'grep CapBnd "/proc/$(cat /run/haproxy.pid)/status"' | awk '{ print $2 }' >"$work/output"
    ((($((16#$(cat "$work/output"))) >> 39 & 1) == 0)) || fail "HAProxy's bounding set has CAP_BPF: $(cat "$work/output")"
    podman rm --force "$scene-w" >/dev/null 2>&1
}

privileges_iptables() {
    local before
    before=$(state_of_host)
    network="ns:/run/netns/$host_ns" start "$scene-i" "${none[@]}" "${server_alone[@]}" --cap-add=NET_ADMIN --
    [[ $(status "$scene-i" '["gate"]["mode"]') == iptables ]] || fail "mode $(status "$scene-i" '["gate"]["mode"]')"
    reloads_under_load "$scene-i" "NET_ADMIN alone, iptables"
    podman stop --time 30 "$scene-i" >/dev/null
    diff <(echo "$before") <(state_of_host) || fail "rules stayed"
    podman rm --force "$scene-i" >/dev/null 2>&1
}

# HAProxy reaches its backend with the address of its client, who is behind another interface of the host.
privileges_transparent() {
    local before peer
    make_far_client
    in_client_background python3 - "$work/backend" <<'PYTHON'
import socket, sys
server = socket.create_server(("10.91.7.2", 9000))
open(sys.argv[1], "w").close() # now it listens
while True:
    connection, peer = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + peer[0].encode())
    connection.close()
PYTHON
    helpers+=($!)
    until_so "the backend listens" test -e "$work/backend"
    transparent_configuration
    before=$(state_of_host)
    start "$scene-t" "${none[@]}" "${server_alone[@]}" "${documented[@]}" --
    for _ in 1 2; do
        peer=$(in_far curl -s --max-time 20 http://10.91.8.1/) || true
        [[ $peer == 10.91.8.2 ]] || fail "the backend sees '$peer'"
        reload_by HUP "$scene-t"
    done
    podman stop --time 30 "$scene-t" >/dev/null
    diff <(echo "$before") <(state_of_host) || fail "left by transparent proxying"
    podman rm --force "$scene-t" >/dev/null 2>&1
    remove_far_client
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# Debian's own configuration, and a frontend.
stock_configuration() {
    podman run --rm --network none "$image" cat /etc/haproxy/haproxy.cfg >"$work/stock.cfg" ||
        fail "the image has no configuration of Debian's"
    { cat "$work/stock.cfg" && sed -n '/^frontend/,$p' tests/container/haproxy.cfg; } >"$work/cfg/haproxy.cfg"
}

# starts_with_alone NAME WHY CAPABILITIES...: and reloads, with these; without them it does not start, and the log
# says WHY.
starts_with_alone() {
    local name=$1 why=$2
    local -a without=(--cap-add=SYS_CHROOT)
    shift 2
    [[ $1 != SYS_CHROOT ]] || without=()
    run_container "$scene-no$name" "${none[@]}" "${server_alone[@]}" "${documented[@]}" "${without[@]}" --
    [[ $(exit_status_of "$scene-no$name") == 1 ]] || fail "without $* it ended with $(exit_status_of "$scene-no$name")"
    podman logs "$scene-no$name" >"$work/output" 2>&1
    expect_output "$why"
    podman rm --force "$scene-no$name" >/dev/null 2>&1
    start "$scene-$name" "${none[@]}" "${server_alone[@]}" "${documented[@]}" "${without[@]}" "${@/#/--cap-add=}" --
    reload_by HUP "$scene-$name"
    reload_by exec "$scene-$name"
    [[ $(in_client curl -s "http://$server4/") == hello ]] || fail "it does not serve with $*"
    podman rm --force "$scene-$name" >/dev/null 2>&1
}

# What HAProxy itself needs for it, and for what others have in theirs.
privileges_stock() {
    [[ $(podman run --rm --network none "$image" stat -c '%a %U %G' /run/haproxy) == '2775 root haproxy' ]] ||
        fail "/run/haproxy is $(podman run --rm --network none "$image" stat -c '%a %U %G' /run/haproxy)"
    stock_configuration
    starts_with_alone chroot 'chroot' SYS_CHROOT
    sed -i 's/admin.sock mode 660/admin.sock user haproxy group haproxy mode 660/' "$work/cfg/haproxy.cfg"
    starts_with_alone owner 'admin.sock' CHOWN FOWNER
    stock_configuration
    printf 'HTTP/1.0 400 Bad request\r\n\r\n' >"$work/cfg/400.http"
    chmod 600 "$work/cfg/400.http"
    chown 1234 "$work/cfg/400.http"
    sed -i 's|errorfile 400 .*|errorfile 400 /usr/local/etc/haproxy/400.http|' "$work/cfg/haproxy.cfg"
    starts_with_alone others '400.http' DAC_OVERRIDE
    rm "$work/cfg/400.http"
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# Exit status 3, and what to add.
privileges_missing() {
    run_container "$scene-m" --env SYNGATE_MODE=bpf --cap-add=NET_ADMIN --
    [[ $(exit_status_of "$scene-m") == 3 ]] || fail "without CAP_BPF it ended with $(exit_status_of "$scene-m")"
    podman logs "$scene-m" >"$work/output" 2>&1
    expect_output '--cap-add=BPF'
    run_container "$scene-o" --
    [[ $(exit_status_of "$scene-o") == 3 ]] || fail "with no capability it ended with $(exit_status_of "$scene-o")"
    podman logs "$scene-o" >"$work/output" 2>&1
    expect_output '--cap-add=BPF'
    expect_output '--cap-add=NET_ADMIN'
}

# With a /run like Kubernetes' emptyDir, where everybody may write: nobody may rename what is the agent's.
privileges_read_only() {
    mkdir -m 777 "$work/run"
    start "$scene-r" "${documented[@]}" --read-only --volume "$work/run:/run" --
    reloads_under_load "$scene-r" "read-only root file system"
    [[ $(podman exec "$scene-r" stat -c %a /run) == 1777 ]] || fail "others may replace the control socket's directory"
    [[ $(pid_in_file "$scene-r") == "$(status "$scene-r" '["server"]["pid"]')" ]] || fail "no pid file"
    podman rm --force "$scene-r" >/dev/null 2>&1
}

# Then nobody gets by starting a program what the starter does not have: the agent keeps it, not in effect.
privileges_no_new() {
    start "$scene-g" "${documented[@]}" --security-opt=no-new-privileges --
    reloads_under_load "$scene-g" "no-new-privileges"
    [[ $(holds "$scene-g" permitted) == *CAP_SETUID* ]] || fail "it could not start HAProxy: $(holds "$scene-g" permitted)"
    [[ $(holds "$scene-g" effective) != *CAP_SETUID* ]] || fail "it holds CAP_SETUID in effect"
    podman rm --force "$scene-g" >/dev/null 2>&1
}
