# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# What is in deploy/, as it is there: only names are changed, so that nobody else's containers are met.

case_deploy() {
    deploy_package
    deploy_unit
    deploy_manual_and_completion
    deploy_compose
    deploy_kubernetes pod
    deploy_kubernetes daemonset
    deploy_rolling_update
}

# podman 4.3 has no DaemonSet: of a Deployment it makes the same pod. The annotation stands for its seccomp profile. Of an
# emptyDir it makes a volume of that name, which would be that of all pods. The machine's own lock is left alone.
manifest() {
    sed -e "s/\(^ *- \)name: \(run\|sockets\)\$/\1name: $scene-\2/" \
        -e "s/\(^ *\(- \)*\)name: haproxy\$/\1name: $scene/; s/app: haproxy/app: $scene/; s|image: syngate\$|image: $image|" \
        -e "s|path: /run/xtables.lock\$|path: $work/xtables.lock|" \
        -e 's/^kind: DaemonSet/kind: Deployment/; /updateStrategy:/,/maxUnavailable:/d' \
        -e '/^kind: Pod$/,/^spec:/ s|^  labels:|  annotations:\n    seccomp.security.alpha.kubernetes.io/pod: localhost/seccomp.json\n  labels:|' \
        -e '/^  template:$/,$ s|^      labels:|      annotations:\n        seccomp.security.alpha.kubernetes.io/pod: localhost/seccomp.json\n      labels:|' \
        "$@"
}

# play KIND NAME: what is in deploy/kubernetes, under another name; sets pod. The pod of a network of its own shares
# host_ns as well: podman puts no pod into a namespace that is there.
play() {
    local kind=$1 scene=$2
    if [[ $kind == daemonset ]]; then
        { sed '/^---$/,$d' deploy/kubernetes/pod.yaml && echo --- && cat deploy/kubernetes/daemonset.yaml; } >"$work/both.yaml"
        manifest "$work/both.yaml" >"$work/$kind.yaml"
    else
        manifest deploy/kubernetes/pod.yaml >"$work/$kind.yaml"
    fi
    pods+=("$scene" "$scene-pod-0" "$scene-pod" "$scene-run" "$scene-sockets")
    in_host podman kube play --network host --seccomp-profile-root "$work" "$work/$kind.yaml" >"$work/output" 2>&1 ||
        fail "podman kube play $kind: $(cat "$work/output")"
    pod=$(podman ps --format '{{.Names}}' | grep "^$scene-.*$scene\$") || fail "no container of $kind: $(podman ps)"
    containers+=("$pod")
}

remove_pod() {
    podman pod rm --force --time 0 "$(podman inspect --format '{{.Pod}}' "$1")" >/dev/null
    podman volume rm --force "$2" "$2-run" "$2-sockets" >/dev/null
}

deploy_kubernetes() {
    local kind=$1 pod
    play "$kind" "$scene"
    until_so "$kind serves" serves "$pod"
    [[ $(status "$pod" '["gate"]["mode"]') == bpf ]] || fail "$kind: mode $(status "$pod" '["gate"]["mode"]')"
    [[ $kind != daemonset ]] || shares_xtables_lock "$pod"
    start_load 300 "$server4:80" "[$server6]:80"
    reload_by exec "$pod"
    reload_by HUP "$pod"
    expect_no_failure "$kind"
    remove_pod "$pod" "$scene"
}

is_awaited() {
    podman exec "$1" syngate status --json | grep -q '"awaited_by":\[[0-9]'
}

# What the DaemonSet's controller does: the second pod is there before the first one is told to go.
deploy_rolling_update() {
    local pod old before
    before=$(state_of_host)
    play daemonset "$scene-old"
    old=$pod
    until_so "the old pod serves" serves "$old"
    start_load 500 "$server4:80" "[$server6]:80"
    play daemonset "$scene-new"
    until_so "the new pod waits for the ports" is_awaited "$old"
    podman stop --time 60 "$old" >/dev/null # its restart policy would start a killed one again
    until_so "the new pod serves" serves "$pod"
    reload_by HUP "$pod"
    expect_no_failure "a rolling update of the DaemonSet"
    podman logs "$old" >"$work/output" 2>&1
    expect_output 'a successor serves'
    podman stop --time 30 "$pod" >/dev/null
    diff <(echo "$before") <(state_of_host) || fail "left by a rolling update"
    remove_pod "$old" "$scene-old"
    remove_pod "$pod" "$scene-new"
}

# Whoever holds the host's lock keeps iptables in the container out.
shares_xtables_lock() {
    [[ $(podman exec "$1" stat -c '%d %i' /run/xtables.lock) == "$(stat -c '%d %i' "$work/xtables.lock")" ]] ||
        fail "the container has an xtables lock of its own"
}

# The Debian package that the image was made of.
deploy_package() {
    local once=(podman run --rm --network none "$image") file
    expect_status 0 "${once[@]}" dpkg-query --show --showformat '${Status} ${Depends}' syngate
    expect_output 'install ok installed'
    expect_output 'libbpf'
    expect_status 0 "${once[@]}" dpkg-query --listfiles syngate
    for file in /usr/sbin/syngate /usr/lib/systemd/system/syngate.service /usr/share/man/man8/syngate.8 \
        /usr/share/bash-completion/completions/syngate /usr/share/zsh/vendor-completions/_syngate; do
        grep -qx "$file" "$work/output" || fail "the package has no $file: $(cat "$work/output")"
    done
}

# Every directive is known, and the sandbox is one.
deploy_unit() {
    type -P systemd-analyze >/dev/null || fail "systemd-analyze is missing; run 'sudo script/bootstrap container'"
    sed 's|/usr/sbin/syngate|/bin/true|' deploy/systemd/syngate.service >"$work/syngate.service"
    expect_status 0 systemd-analyze verify --man=no "$work/syngate.service"
    [[ ! -s $work/output ]] || fail "systemd-analyze verify: $(cat "$work/output")"
    expect_status 0 systemd-analyze security --offline=yes --threshold=45 "$work/syngate.service"
}

# Every option is in the manual; bash completes verbs and options, and behind -- programs.
deploy_manual_and_completion() {
    local verb option
    for verb in run exec reload restart status close open flip probe cleanup; do
        while read -r option; do
            grep -qF -- "${option//-/\\-}" docs/syngate.8 || fail "docs/syngate.8 does not have $option of syngate $verb"
        done < <("$build/syngate" "$verb" --help | grep -oE -- '--[a-z][a-z-]*' | sort -u)
    done
    completes 'syngate rel' reload
    completes 'syngate run --po' --ports
    completes 'syngate run --po' --policy
    completes 'syngate run -- mkdi' mkdir
}

completes() {
    PATH=$build:$PATH bash -c '. deploy/completions/syngate.bash; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _syngate
        printf "%s\n" "${COMPREPLY[@]}"' completion "$1" >"$work/output"
    grep -qx -- "$2" "$work/output" || fail "'$1' is not completed to '$2': $(cat "$work/output")"
}

# No compose program here: the capabilities and the mounts are taken from the file.
deploy_compose() {
    local -a options
    mapfile -t options < <(sed -n 's/^ *cap_drop: \[\(.*\)\]/\1/p' deploy/compose.yaml | tr -d ' ' | tr ',' '\n' | sed 's/^/--cap-drop=/'
        sed -n 's/^ *cap_add: \[\(.*\)\]/\1/p' deploy/compose.yaml | tr -d ' ' | tr ',' '\n' | sed 's/^/--cap-add=/'
        sed -n 's/^ *tmpfs: \[\(.*\)\]/\1/p' deploy/compose.yaml | tr -d ' ' | tr ',' '\n' | sed 's/^/--tmpfs=/'
        sed -n 's/^ *read_only: true/--read-only/p' deploy/compose.yaml)
    ((${#options[@]} > 5)) || fail "deploy/compose.yaml has not what is looked for: ${options[*]}"
    start "$scene-compose" "${options[@]}" --
    reloads_under_load "$scene-compose" "compose"
    podman rm --force "$scene-compose" >/dev/null 2>&1
    stock_configuration
    start "$scene-stock" "${options[@]}" --cap-add=SYS_CHROOT --
    reloads_under_load "$scene-stock" "compose, Debian's configuration"
    podman rm --force "$scene-stock" >/dev/null 2>&1
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}
