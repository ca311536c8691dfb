# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154

# Reloads under load, by every way there is, with exactly the documented capabilities.
case_reload() {
    local way before
    before=$(state_of_host)
    network="ns:/run/netns/$host_ns" start "$scene-a" "${documented[@]}" --
    [[ $(status "$scene-a" '["gate"]["mode"]') == bpf ]] || fail "mode $(status "$scene-a" '["gate"]["mode"]')"
    start_load 500 "$server4:80" "[$server6]:80"
    for way in HUP exec file USR2 write exec HUP; do
        reload_by "$way" "$scene-a"
    done
    expect_no_failure "reloads by signal, exec and file"
    podman exec "$scene-a" syngate status
    podman stop --time 30 "$scene-a" >/dev/null
    [[ $(exit_status_of "$scene-a") == 0 ]] || fail "stopped with status $(exit_status_of "$scene-a")"
    diff <(echo "$before") <(state_of_host) || fail "the host is not as it was"
}
