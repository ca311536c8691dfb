# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2154
# What users of the old image rely on.

pid_in_file() {
    podman exec "$1" cat /run/haproxy.pid
}

case_contract() {
    contract_arguments
    contract_ports_and_pid_file
    contract_user
    contract_graceful_stop
    contract_exit_status
    contract_mounts
}

contract_arguments() {
    local once=(podman run --rm --network none "$image")
    expect_status 0 "${once[@]}" -vv
    expect_output '^HAProxy version'
    expect_status 7 "${once[@]}" sh -c 'echo "pid $$"; exit 7'
    expect_output '^pid 1$' # executed as it is, in the agent's place
    # What HAProxy only answers needs neither a capability nor the agent.
    expect_status 0 "${once[@]}" -dMhelp
    expect_status 0 "${once[@]}" -cc 'version_atleast(2.4)'
    expect_status 0 podman run --rm --network none --volume "$work/cfg:/usr/local/etc/haproxy:ro" "$image" -c
    # An HAProxy that would serve is bare then, and that is said.
    expect_status 1 "${once[@]}" haproxy -f /nowhere.cfg
    expect_output "executing 'haproxy -f /nowhere.cfg' as it is, without syngate"
    expect_status 0 "${once[@]}" haproxy -vv
    ! grep -q 'without syngate' "$work/output" || fail "warned of a question"
    expect_status 2 "${once[@]}" no-such-command
    expect_output 'no-such-command'
    # Arguments with a dash are HAProxy's: another configuration by -f.
    cp "$work/cfg/haproxy.cfg" "$work/cfg/other.cfg"
    sed -i 's/:::80 /:::8080 /; s/"hello"/"other"/' "$work/cfg/other.cfg"
    start "$scene-f" "${documented[@]}" --env HAPROXY_PORTS=8080 -- -f /usr/local/etc/haproxy/other.cfg -dM
    [[ $(in_client curl -s "http://$server4:8080/") == other ]] || fail "HAProxy did not get its arguments"
    podman rm --force "$scene-f" >/dev/null 2>&1
}

contract_ports_and_pid_file() {
    local first
    start "$scene-p" "${documented[@]}" --env HAPROXY_PORTS=80,8443 --
    [[ $(status "$scene-p" '["server"]["ports"]') == 80,8443 ]] || fail "HAPROXY_PORTS: $(status "$scene-p" '["server"]["ports"]')"
    first=$(pid_in_file "$scene-p")
    [[ $first == "$(status "$scene-p" '["server"]["pid"]')" ]] || fail "the pid file has '$first'"
    [[ $(podman exec "$scene-p" cat "/proc/$first/comm") == haproxy ]] || fail "the pid file names no haproxy"
    reload_by HUP "$scene-p"
    [[ $(pid_in_file "$scene-p") != "$first" ]] || fail "the pid file has the old process"
    [[ $(pid_in_file "$scene-p") == "$(status "$scene-p" '["server"]["pid"]')" ]] || fail "the pid file is not the new process"
    podman rm --force "$scene-p" >/dev/null 2>&1
    start "$scene-d" "${documented[@]}" --
    [[ $(status "$scene-d" '["server"]["ports"]') == 80,443 ]] || fail "the default ports are $(status "$scene-d" '["server"]["ports"]')"
    podman rm --force "$scene-d" >/dev/null 2>&1
}

haproxy_status() {
    podman exec "$1" sh -c "grep -E '$2' /proc/\$(cat /run/haproxy.pid)/status"
}

contract_user() {
    start "$scene-u" "${documented[@]}" --
    local uid
    uid=$(podman exec "$scene-u" id -u haproxy)
    [[ $(haproxy_status "$scene-u" ^Uid: | awk '{ print $2, $3, $4 }') == "$uid $uid $uid" ]] || fail "HAProxy is not the user haproxy"
    [[ $(haproxy_status "$scene-u" ^CapPrm: | awk '{ print $2 }') == 0000000000000000 ]] || fail "HAProxy holds capabilities"
    podman rm --force "$scene-u" >/dev/null 2>&1
    sed 's/^global/global\n    user nobody\n    group nogroup/' tests/container/haproxy.cfg >"$work/cfg/haproxy.cfg"
    start "$scene-n" "${documented[@]}" --
    [[ $(haproxy_status "$scene-n" ^Uid: | awk '{ print $2 }') == 65534 ]] || fail "the configuration's own user does not hold"
    podman rm --force "$scene-n" >/dev/null 2>&1
    # A group of its own, and users that are a userlist's.
    { sed 's/^global/global\n    group nogroup/' tests/container/haproxy.cfg && printf 'userlist people\n    user tom\n'; } >"$work/cfg/haproxy.cfg"
    start "$scene-h" "${documented[@]}" --
    [[ $(haproxy_status "$scene-h" ^Uid: | awk '{ print $2 }') == "$uid" ]] || fail "a user of a userlist was taken for HAProxy's"
    [[ $(haproxy_status "$scene-h" ^Gid: | awk '{ print $2 }') == 65534 ]] || fail "the configuration's own group does not hold"
    podman rm --force "$scene-h" >/dev/null 2>&1
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# proxy_configuration LINE: everything goes to a backend, which is the scene's client. LINE is one of the backend's.
proxy_configuration() {
    sed '/http-request return/d' tests/container/haproxy.cfg
    printf '    default_backend slow\nbackend slow\n    %s\n    server slow 10.91.7.2:9000\n' "$1"
}

# A response that takes until we say so.
hanging_configuration() {
    proxy_configuration '' >"$work/cfg/haproxy.cfg"
}

# Answers all requests under way when something is written to $work/answer, and counts them in $work/asked.
start_backend() {
    rm -f "$work/answer" "$work/asked"
    mkfifo "$work/answer"
    in_client_background python3 - "$work/answer" "$work/asked" <<'PYTHON'
import socket, sys, threading
server = socket.create_server(("10.91.7.2", 9000))
open(sys.argv[2], "w").close() # now it listens
def serve(connection):
    connection.recv(4096)
    open(sys.argv[2], "a").write("asked\n")
    open(sys.argv[1]).read() # until the writer closes
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\nfinished")
    connection.close()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
PYTHON
    backend_pid=$!
    helpers+=("$backend_pid")
    until_so "the backend listens" test -e "$work/asked"
}

stop_backend() {
    kill "$backend_pid"
    wait "$backend_pid" || true
}

asked() {
    (($(grep -c . "$work/asked" 2>/dev/null) >= $1))
}

nobody_listens() {
    [[ -z $(in_host ss -Hltn 'sport = 80') ]]
}

# Requests that are under way in two generations of HAProxy both finish; nobody new gets in meanwhile.
contract_graceful_stop() {
    local old new stop
    hanging_configuration
    start "$scene-s" "${documented[@]}" --
    start_backend
    in_client curl -s --max-time 120 "http://$server4/" >"$work/old" &
    old=$!
    until_so "the first request is under way" asked 1
    reload_by HUP "$scene-s"
    in_client curl -s --max-time 120 "http://$server4/" >"$work/new" &
    new=$!
    until_so "the second request is under way" asked 2
    podman stop --time 300 "$scene-s" >/dev/null &
    stop=$!
    until_so "nobody listens any more" nobody_listens
    kill -0 "$stop" || fail "stopped before the requests were answered"
    printf x >"$work/answer"
    wait "$old" "$new" "$stop"
    [[ $(cat "$work/old")$(cat "$work/new") == finishedfinished ]] || fail "requests were cut: '$(cat "$work/old")' '$(cat "$work/new")'"
    [[ $(exit_status_of "$scene-s") == 0 ]] || fail "stopped with status $(exit_status_of "$scene-s")"
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
}

# A crash of HAProxy is the container's, so that `restart: on-failure` sees it.
contract_exit_status() {
    start "$scene-x" "${documented[@]}" --
    podman exec "$scene-x" sh -c 'kill -SEGV "$(cat /run/haproxy.pid)"'
    [[ $(exit_status_of "$scene-x") == 139 ]] || fail "HAProxy crashed, and the container ended with $(exit_status_of "$scene-x")"
    run_container "$scene-y" "${documented[@]}" -- -f /nowhere.cfg
    [[ $(exit_status_of "$scene-y") == 1 ]] || fail "no configuration, and the container ended with $(exit_status_of "$scene-y")"
}

# Kubernetes swaps the link ..data in the directory of a ConfigMap; a file that is mounted alone keeps its inode.
contract_mounts() {
    local before
    rm -f "$work/cfg/haproxy.cfg"
    mkdir "$work/cfg/..1"
    cp tests/container/haproxy.cfg "$work/cfg/..1/haproxy.cfg"
    ln -s ..1 "$work/cfg/..data"
    ln -s ..data/haproxy.cfg "$work/cfg/haproxy.cfg"
    start "$scene-k" "${documented[@]}" --
    before=$(reloads "$scene-k")
    cp -r "$work/cfg/..1" "$work/cfg/..2"
    sed -i 's/"hello"/"swapped"/' "$work/cfg/..2/haproxy.cfg"
    ln -s ..2 "$work/cfg/..data_tmp"
    mv -T "$work/cfg/..data_tmp" "$work/cfg/..data"
    rm -r "$work/cfg/..1"
    until_so "the swap of ..data reloads" has_reloaded "$scene-k" $((before + 1))
    [[ $(in_client curl -s "http://$server4/") == swapped ]] || fail "the swapped configuration does not serve"
    podman rm --force "$scene-k" >/dev/null 2>&1
    rm -rf "$work/cfg"/* "$work/cfg"/..[0-9]* "$work/cfg/..data"
    cp tests/container/haproxy.cfg "$work/cfg/haproxy.cfg"
    cp tests/container/haproxy.cfg "$work/single.cfg"
    start "$scene-b" "${documented[@]}" --volume "$work/single.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro" --
    before=$(reloads "$scene-b")
    sed 's/"hello"/"written"/' tests/container/haproxy.cfg >"$work/draft.cfg"
    cat "$work/draft.cfg" >"$work/single.cfg"
    until_so "writing to a mounted file reloads" has_reloaded "$scene-b" $((before + 1))
    [[ $(in_client curl -s "http://$server4/") == written ]] || fail "the written configuration does not serve"
    podman rm --force "$scene-b" >/dev/null 2>&1
}
