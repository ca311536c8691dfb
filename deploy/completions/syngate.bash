# SPDX-License-Identifier: GPL-2.0-or-later
# Completion for bash. The program itself says which verbs and options it has.
_syngate() {
    local current=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${COMP_WORDS[i]} == -- ]]; then # from here on it is the server's command
            mapfile -t COMPREPLY < <(compgen -f -c -- "$current")
            return
        fi
    done
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$(syngate --help | awk '/^Subcommands:/ { list = 1; next } /^[^ ]/ { list = 0 }
            list && /^  [a-z]/ { print $1 }') --help --version" -- "$current")
    elif [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(syngate "$verb" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u) --" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}
complete -o filenames -F _syngate syngate
