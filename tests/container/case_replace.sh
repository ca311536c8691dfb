# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154

case_replace() {
    replace_one_by_another
    replace_transparent
    replace_one_that_ends
    replace_by_what_cannot_start
    replace_behind_exec
}

# replace_with NAME [OPTIONS...]: the documented command, from the scene's host.
replace_with() {
    local old=$1 new=$2
    shift 2
    containers+=("$new")
    in_host deploy/container/replace "$old" podman create --name "$new" --network host \
        --volume "$work/cfg:/usr/local/etc/haproxy:ro" "${documented[@]}" "$@" "$image"
}

is_stopped() {
    [[ $(podman inspect --format '{{.State.Running}}' "$1") == false ]]
}

# Two containers on --net=host: the second one waits for the first one's ports, which that gives up behind its gate.
# A request that the first one has still to finish does not keep the second one waiting.
replace_one_by_another() {
    local slow before
    before=$(state_of_host)
    hanging_configuration
    sed -i '/default_backend/i\    http-request return status 200 content-type text/plain string "hello" unless { path /slow }' "$work/cfg/haproxy.cfg"
    start "$scene-old" "${documented[@]}" --
    start_backend
    in_client curl -s --max-time 120 "http://$server4/slow" >"$work/slow" &
    slow=$!
    until_so "a slow request is under way" asked 1
    start_load 500 "$server4:80" "[$server6]:80"
    replace_with "$scene-old" "$scene-new" >"$work/replace" 2>&1 || fail "the replacement failed: $(cat "$work/replace")"
    serves "$scene-new" || fail "it is said to be done, and the new one does not serve"
    [[ $(podman inspect --format '{{.State.Running}}' "$scene-old") == true ]] || fail "the old one did not wait for its slow request"
    expect_no_failure "one container replaced by another"
    podman logs "$scene-old" 2>&1 | grep -o 'a successor serves.*' || fail "the old one did not hold the gate"
    printf x >"$work/answer"
    wait "$slow"
    [[ $(cat "$work/slow") == finished ]] || fail "the slow request was cut: '$(cat "$work/slow")'"
    stop_backend
    until_so "the old one ends" is_stopped "$scene-old"
    reload_by HUP "$scene-new"
    podman stop --time 30 "$scene-new" >/dev/null
    diff <(echo "$before") <(state_of_host) || fail "the host is not as it was"
    podman rm --force "$scene-old" "$scene-new" >/dev/null 2>&1
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# The new one takes transparent proxying over, while the old one has a transparent connection to finish.
replace_transparent() {
    local mode slow before
    make_far_client
    before=$(state_of_host)
    start_backend
    for mode in bpf iptables; do
        transparent_configuration
        : >"$work/asked"
        start "$scene-told$mode" "${documented[@]}" --env "SYNGATE_MODE=$mode" --
        [[ $(status "$scene-told$mode" '["transparent"]["on"]') == True ]] || fail "no transparent proxying"
        in_far curl -s --max-time 120 http://10.91.8.1/ >"$work/slow" &
        slow=$!
        until_so "a slow request is under way" asked 1
        replace_with "$scene-told$mode" "$scene-tnew$mode" --env "SYNGATE_MODE=$mode" >"$work/replace" 2>&1 ||
            fail "the replacement failed: $(cat "$work/replace")"
        [[ $(status "$scene-tnew$mode" '["transparent"]["on"]') == True ]] ||
            fail "the new one does no transparent proxying: $(status "$scene-tnew$mode" '["transparent"]')"
        in_far curl -s --max-time 120 http://10.91.8.1/ >"$work/next" &
        until_so "a request to the new one reaches the backend" asked 2
        printf x >"$work/answer"
        wait "$slow" "$!"
        [[ $(cat "$work/slow")$(cat "$work/next") == finishedfinished ]] || fail "cut: '$(cat "$work/slow")' '$(cat "$work/next")'"
        until_so "the old one ends" is_stopped "$scene-told$mode"
        [[ $(in_host ip rule) == *'lookup 8300'* ]] || fail "the old one took the new one's rule with it: $(in_host ip rule)"
        podman stop --time 30 "$scene-tnew$mode" >/dev/null
        diff <(echo "$before") <(state_of_host) || fail "left by a transparent replacement in mode $mode"
        podman rm --force "$scene-told$mode" "$scene-tnew$mode" >/dev/null 2>&1
    done
    stop_backend
    remove_far_client
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# The old one ends by itself while the new one waits for it: that has its ports all the same. The engine asked here
# stops the old one before it is asked about it.
replace_one_that_ends() {
    start "$scene-ends" "${documented[@]}" --
    cat >"$work/engine" <<ENGINE
#!/bin/sh
[ "\$1 \$2" != "exec $scene-ends" ] || podman stop --time 30 "$scene-ends" >/dev/null
exec podman "\$@"
ENGINE
    chmod +x "$work/engine"
    ENGINE=$work/engine replace_with "$scene-ends" "$scene-after" >"$work/replace" 2>&1 || fail "the replacement failed: $(cat "$work/replace")"
    serves "$scene-after" || fail "it is said to be done, and the new one does not serve"
    podman rm --force "$scene-ends" "$scene-after" >/dev/null 2>&1
}

# A configuration that is wrong, a capability that is missing, a name that is taken: the old one is not even told.
# One that ends after it has got the ports: the old one is started again.
replace_by_what_cannot_start() {
    start "$scene-o" "${documented[@]}" --
    start_load 300 "$server4:80"
    printf 'no such word\n' >"$work/bad.cfg"
    expect_status 1 replace_with "$scene-o" "$scene-b" --volume "$work/bad.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"
    expect_output 'unknown keyword'
    expect_status 1 replace_with "$scene-o" "$scene-b" --env SYNGATE_WAIT_FOR_PORTS=0s
    expect_output 'was left as it is'
    expect_status 1 replace_with "$scene-o" "$scene-o"
    serves "$scene-o" || fail "the old one does not serve any more"
    expect_no_failure "replacements that cannot start"
    # HAProxy cannot bind a privileged port as a user, which no check tells.
    expect_status 1 replace_with "$scene-o" "$scene-late" --cap-drop=SETUID
    expect_output 'serves again'
    until_so "the old one serves again" serves "$scene-o"
    [[ $(in_client curl -s "http://$server4/") == hello ]] || fail "the old one does not answer"
    podman rm --force "$scene-o" "$scene-late" >/dev/null 2>&1
    # The same with an engine that starts it again and again.
    start "$scene-p" "${documented[@]}" --
    PATIENCE=10 expect_status 1 replace_with "$scene-p" "$scene-again" --cap-drop=SETUID --restart=always
    expect_output 'serves again'
    until_so "the old one serves again" serves "$scene-p"
    podman rm --force "$scene-p" "$scene-again" >/dev/null 2>&1
}

# Where the two are told by something else, a gate on the host stands around both.
replace_behind_exec() {
    start "$scene-eo" "${documented[@]}" --
    start_load 300 "$server4:80" "[$server6]:80"
    containers+=("$scene-en")
    # The command ends while the old one may still listen, and before the new one does.
    in_host "$build/syngate" exec --ports 80 --runtime-dir "$work/run" -- sh -c '
        podman run --detach --name "$2" --network host --volume "$3:/usr/local/etc/haproxy:ro" --cap-add=BPF --cap-add=NET_ADMIN "$4"
        podman kill --signal TERM "$1"' sh "$scene-eo" "$scene-en" "$work/cfg" "$image" >"$work/replace" 2>&1 ||
        fail "the replacement failed: $(cat "$work/replace")"
    until_so "the new one serves" serves "$scene-en"
    expect_no_failure "one container replaced by another behind exec"
    grep -o 'exec done.*' "$work/replace" || cat "$work/replace"
    podman rm --force "$scene-eo" "$scene-en" >/dev/null 2>&1
}
