# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Sourced by the other scripts: strict mode, the tree's root as working directory, and messages.
# Exit statuses are syngate's own: 1 failed, 2 usage, 3 impossible here.
set -euo pipefail

export LC_ALL=C
# Debian puts ip, tc, bpftool and haproxy where a user's PATH does not look.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly program="script/${0##*/}"

say() {
    printf '%s: %s\n' "$program" "$*" >&2
}

# die STATUS MESSAGE
die() {
    local status=$1
    shift
    say "$@"
    exit "$status"
}

# need_root WHAT-FOR
need_root() {
    ((EUID == 0)) || die 3 "$1 needs root: run it as 'sudo $program'"
}

# Runs a command as the tree's owner where root was lent by sudo, so that `build/` stays the user's own.
as_owner() {
    local uid gid
    uid=$(stat -c %u .)
    gid=$(stat -c %g .)
    local -a drop=(setpriv --reuid "$uid" --regid "$gid" --clear-groups)
    # The owner of a bind mount may not even be able to reach it: then root builds.
    if ((EUID == 0 && uid != 0)) && "${drop[@]}" test -r "$PWD/CMakeLists.txt" -a -w "$PWD"; then
        "${drop[@]}" "$@"
    else
        "$@"
    fi
}
