# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# The unit as the package installs it, under a systemd that is booted in a container on the scene's host.

case_systemd() {
    local before
    before=$(state_of_host)
    boot_systemd
    printf 'global\n    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n' >"$work/haproxy.cfg"
    sed '/^global/d' tests/container/haproxy.cfg >>"$work/haproxy.cfg"
    give_configuration "$work/haproxy.cfg"
    # Type=notify: it comes back when the server serves.
    expect_status 0 by_systemd systemctl start syngate
    [[ $(in_client curl -s "http://$server4/") == hello ]] || fail "the unit is started, and nobody serves"
    expect_status 3 by_systemd systemctl is-active haproxy
    systemd_reloads
    systemd_is_killed
    expect_status 0 by_systemd systemctl stop syngate
    expect_status 0 by_systemd systemctl show --property=Result syngate
    expect_output '^Result=success$'
    diff <(echo "$before") <(state_of_host) || fail "left by the unit"
    podman rm --force --time 0 "$scene-systemd" >/dev/null 2>&1
}

by_systemd() {
    podman exec "$scene-systemd" "$@"
}

# haproxy.service has not ended its first start before.
is_booted() {
    [[ $(by_systemd systemctl is-system-running) == @(running|degraded) ]]
}

# The image, from the same base and with the same package, and systemd. On the machine's own control groups, be they
# of version 1, which systemd must be told to take.
boot_systemd() {
    local with_systemd=$image-systemd
    printf 'FROM %s\nRUN apt-get update && apt-get install --yes --no-install-recommends systemd systemd-sysv\nENTRYPOINT []\n' \
        "$image" >"$work/Containerfile"
    podman build --network host --tag "$with_systemd" --file "$work/Containerfile" "$work" >"$work/output" 2>&1 ||
        fail "no image with systemd could be built: $(tail -n 20 "$work/output")"
    containers+=("$scene-systemd")
    in_host podman run --detach --name "$scene-systemd" --network host --systemd=always \
        --cap-add=SYS_ADMIN,BPF,NET_ADMIN,PERFMON,NET_RAW,SYS_PTRACE,SYS_RESOURCE --security-opt seccomp=unconfined \
        "$with_systemd" /sbin/init systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 >/dev/null ||
        fail "podman could not boot systemd"
    until_so "systemd has booted" is_booted
}

give_configuration() {
    podman exec --interactive "$scene-systemd" sh -c 'cat >/etc/haproxy/haproxy.cfg' <"$1"
}

systemd_reloads() {
    start_load 400 "$server4:80" "[$server6]:80"
    for _ in 1 2 3; do
        expect_status 0 by_systemd systemctl reload syngate
    done
    # It comes back with the status of the reload, and the unit goes on with the old server.
    printf 'no such word\n' >"$work/bad.cfg"
    give_configuration "$work/bad.cfg"
    expect_status 1 by_systemd systemctl reload syngate
    give_configuration "$work/haproxy.cfg"
    expect_status 0 by_systemd systemctl reload syngate
    expect_no_failure "reloads by systemctl"
    expect_status 0 by_systemd systemctl show --property=StatusText syngate
    expect_output 'reload done'
}

# Restart=on-failure.
systemd_is_killed() {
    local first
    first=$(by_systemd systemctl show --property=MainPID --value syngate)
    expect_status 0 by_systemd systemctl kill --signal=KILL --kill-whom=all syngate
    until_so "the unit is started again" bash -c "
        pid=\$(podman exec $scene-systemd systemctl show --property=MainPID --value syngate)
        [[ \$pid != 0 && \$pid != $first ]]"
    until_so "it serves again" systemd_serves
}

systemd_serves() {
    [[ $(in_client curl -s "http://$server4/") == hello ]] && by_systemd systemctl is-active syngate
}
