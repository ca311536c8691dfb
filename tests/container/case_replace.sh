# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154

# Two containers on --net=host: the second one is started while the first one stops, behind a gate of the host's.
# A request that the first one has still to finish does not keep the second one waiting.
case_replace() {
    local slow before name
    before=$(state_of_host)
    hanging_configuration
    sed -i '/default_backend/i\    http-request return status 200 content-type text/plain string "hello" unless { path /slow }' "$work/cfg/haproxy.cfg"
    start "$scene-old" "${documented[@]}" --
    start_backend
    in_client curl -s --max-time 120 "http://$server4/slow" >"$work/slow" &
    slow=$!
    until_so "a slow request is under way" asked 1
    start_load 500 "$server4:80" "[$server6]:80"
    containers+=("$scene-new")
    # The documented command. The new agent waits until the old one's server has let go of the ports.
    in_host "$build/syngate" exec --ports 80 --runtime-dir "$work/run" -- deploy/container/replace "$scene-old" \
        podman run --detach --name "$scene-new" --network host \
        --volume "$work/cfg:/usr/local/etc/haproxy:ro" "${documented[@]}" "$image" >"$work/replace" 2>&1 ||
        fail "the replacement failed: $(cat "$work/replace")"
    until_so "the new one serves" serves "$scene-new"
    [[ $(podman inspect --format '{{.State.Running}}' "$scene-old") == true ]] || fail "the old one did not wait for its slow request"
    expect_no_failure "one container replaced by another"
    grep -o 'exec done.*' "$work/replace" || cat "$work/replace"
    printf x >"$work/answer"
    wait "$slow"
    [[ $(cat "$work/slow") == finished ]] || fail "the slow request was cut: '$(cat "$work/slow")'"
    until_so "the old one ends" bash -c "[[ \$(podman inspect --format '{{.State.Running}}' $scene-old) == false ]]"
    reload_by HUP "$scene-new"
    podman stop --time 30 "$scene-new" >/dev/null
    diff <(echo "$before") <(state_of_host) || fail "the host is not as it was"
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}
