# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# What was wrong with the old image, one function each.

case_defects() {
    defect_no_configuration_check
    defect_no_ipv6
    defect_rules_duplicate_and_stay
    defect_stop_during_reload
    defect_ip_nonlocal_bind
    defect_only_the_newest_is_drained
    # A crash that ends with status 0: contract_exit_status. `USER haproxy` of the base: contract_user.
}

defect_no_configuration_check() {
    start "$scene-1" "${documented[@]}" --
    start_load 300 "$server4:80"
    printf 'no such word\n' >>"$work/cfg/haproxy.cfg" # the watch sees it as well
    expect_status 1 podman exec "$scene-1" syngate reload
    expect_output 'no such word\|unknown keyword'
    [[ $(in_client curl -s "http://$server4/") == hello ]] || fail "the old server does not serve any more"
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
    until_so "the corrected configuration is loaded" last_is_ok "$scene-1"
    expect_no_failure "a bad configuration, and its correction"
    podman rm --force "$scene-1" >/dev/null 2>&1
}

last_is_ok() {
    [[ $(status "$1" '["last"]["ok"]') == True ]] && serves "$1"
}

defect_no_ipv6() {
    local mode
    for mode in bpf iptables; do
        start "$scene-2$mode" "${documented[@]}" --env "SYNGATE_MODE=$mode" --env SYNGATE_POLICY=hold --
        start_load 300 "[$server6]:80"
        reload_by HUP "$scene-2$mode"
        reload_by exec "$scene-2$mode"
        expect_no_failure "IPv6, mode $mode"
        podman rm --force "$scene-2$mode" >/dev/null 2>&1
    done
}

# transparent_configuration: HAProxy asks for what the old image had rules and a route for.
transparent_configuration() {
    proxy_configuration 'source 0.0.0.0 usesrc clientip' >"$work/cfg/haproxy.cfg"
    sed -i 's/:::80 v4v6/:80/' "$work/cfg/haproxy.cfg" # of a v4v6 listener HAProxy takes clients for IPv6
}

# At every start, after every clean stop, and after SIGKILL.
defect_rules_duplicate_and_stay() {
    local before during mode round
    local -a how
    transparent_configuration
    before=$(state_of_host)
    for mode in bpf iptables; do
        how=("${documented[@]}" --env "SYNGATE_MODE=$mode" --env SYNGATE_HOOK=tc) # whose filters stay when killed
        start "$scene-3$mode" "${how[@]}" --
        reload_by HUP "$scene-3$mode"
        during=$(state_of_host)
        [[ $during != "$before" ]] || fail "no state that could stay"
        podman stop --time 30 "$scene-3$mode" >/dev/null
        diff <(echo "$before") <(state_of_host) || fail "left by a clean stop in mode $mode"
        in_host podman start "$scene-3$mode" >/dev/null
        until_so "it serves again" serves "$scene-3$mode"
        reload_by HUP "$scene-3$mode"
        for round in 1 2; do
            podman kill --signal KILL "$scene-3$mode" >/dev/null
            podman wait "$scene-3$mode" >/dev/null
            in_host podman start "$scene-3$mode" >/dev/null
            until_so "it serves after SIGKILL, round $round" serves "$scene-3$mode"
            diff <(same "$during") <(same "$(state_of_host)") || fail "more than before SIGKILL, in mode $mode"
        done
        podman stop --time 30 "$scene-3$mode" >/dev/null
        diff <(echo "$before") <(state_of_host) || fail "left by SIGKILL and the next start in mode $mode"
        podman rm --force "$scene-3$mode" >/dev/null 2>&1
    done
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# The kernel numbers programs and filters anew, and each agent names its chains.
same() {
    sed -E 's/SYNGATE-[0-9a-f]+/SYNGATE/g; s/:?\[[0-9]+\]//g; s/ (id|prog_id|tag|jited|handle|link_id) *[0-9a-fx]*//g' <<<"$1"
}

# SIGTERM at once after a reload was asked for, and while its gate is closed: the drain waits for a client that never
# completes its handshake.
defect_stop_during_reload() {
    local before mode moment name
    before=$(state_of_host)
    for mode in bpf iptables; do
        for moment in asked closed; do
            name=$scene-4$mode$moment
            start "$name" "${documented[@]}" --env "SYNGATE_MODE=$mode" --env SYNGATE_POLICY=drop --env SYNGATE_HANDSHAKE_TIMEOUT=25s --
            [[ $moment == asked ]] || open_half
            podman kill --signal HUP "$name" >/dev/null
            [[ $moment == asked ]] || until_so "the gate is closed" gate_is_closed "$name"
            podman stop --time 30 "$name" >/dev/null
            if [[ $moment == closed ]]; then
                podman logs "$name" >"$work/output" 2>&1
                expect_output 'given up, the agent is stopping'
                close_half
            fi
            [[ $(exit_status_of "$name") == 0 ]] || fail "stopped with status $(exit_status_of "$name")"
            diff <(echo "$before") <(state_of_host) || fail "left by a stop during a reload in mode $mode ($moment)"
            podman rm --force "$name" >/dev/null 2>&1
        done
    done
}

gate_is_closed() {
    [[ $(status "$1" '["gate"]["closed"]') == True ]]
}

# The client's acknowledgements do not leave it.
open_half() {
    in_client iptables --append OUTPUT --protocol tcp --dport 80 --tcp-flags SYN,ACK ACK --jump DROP
    in_client_background bash -c "exec 3<>/dev/tcp/$server4/80 && exec sleep 60"
    half_pid=$!
    helpers+=("$half_pid")
    until_so "a connection is half open" is_half_open
}

is_half_open() {
    [[ -n $(in_host ss -Htn state syn-recv 'sport = 80') ]]
}

close_half() {
    in_client iptables --flush OUTPUT
    kill "$half_pid"
    wait "$half_pid" || true
}

# It is neither needed nor touched, whatever it is.
defect_ip_nonlocal_bind() {
    local value
    transparent_configuration
    for value in 0 1; do
        in_host sysctl -qw net.ipv4.ip_nonlocal_bind=$value
        start "$scene-5$value" "${documented[@]}" --
        [[ $(in_host sysctl -n net.ipv4.ip_nonlocal_bind) == "$value" ]] || fail "ip_nonlocal_bind was changed at the start"
        podman stop --time 30 "$scene-5$value" >/dev/null
        [[ $(in_host sysctl -n net.ipv4.ip_nonlocal_bind) == "$value" ]] || fail "ip_nonlocal_bind was changed at the stop"
        podman rm --force "$scene-5$value" >/dev/null 2>&1
    done
    in_host sysctl -qw net.ipv4.ip_nonlocal_bind=0
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# contract_graceful_stop has a request in each of two generations. Here, three.
defect_only_the_newest_is_drained() {
    local generation
    local -a requests=()
    hanging_configuration
    start "$scene-6" "${documented[@]}" --
    start_backend
    for generation in 1 2 3; do
        in_client curl -s --max-time 120 "http://$server4/" >"$work/answer.$generation" &
        requests+=($!)
        until_so "request $generation is under way" asked "$generation"
        ((generation == 3)) || reload_by HUP "$scene-6"
    done
    [[ $(status "$scene-6" '["server"]["retiring"].__len__()') == 2 ]] || fail "not two older generations finish"
    podman stop --time 300 "$scene-6" >/dev/null &
    requests+=($!)
    until_so "nobody listens any more" nobody_listens
    printf x >"$work/answer"
    wait "${requests[@]}"
    [[ $(cat "$work"/answer.[123]) == finishedfinishedfinished ]] || fail "requests of older generations were cut"
    podman rm --force "$scene-6" >/dev/null 2>&1
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}
