# What the shell scripts of the recipes share; they set `program` and `usage`, then source it.
# shellcheck shell=bash disable=SC2154
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)
python=${PYTHON:-}
gpu='' gpus='' again=''
more=()     # what came after --
asked=''    # the first signal that came
child=''    # what runs

# One line, and status 2.
refuse() {
    # What a terminal would obey is shown as a question mark.
    printf '%s: %s; --help lists the flags' "$program" "$1" | LC_ALL=C tr -c ' -~' '?' >&2
    echo >&2
    exit 2
}

# Refuses flag $1, of which there are $2 words left, itself the first, unless its value $3 is one.
need() {
    [ "$2" -ge 2 ] || refuse "$1: expected a value; found none"
    case $3 in
        '' | --*) refuse "$1: expected a value; found '$3'" ;;
    esac
}

# A flag that all scripts have, and what follows it. Sets `taken`: how many words it was.
# shellcheck disable=SC2034
shared_flag() {
    taken=2
    case $1 in
        --gpu | --gpus)
            need "$1" $# "${2-}"
            [[ $2 =~ ^[0-9]{1,4}$ ]] || refuse "$1: expected a whole number; found '$2'"
            if [ "$1" = --gpu ]; then gpu=$2; else gpus=$2; fi ;;
        --resume | --overwrite)
            [ "${again:-$1}" = "$1" ] || refuse "--resume, --overwrite: expected one; found both"
            again=$1 taken=1 ;;
        --help | -h) echo "$usage"; exit 0 ;;
        --) more=("${@:2}"); taken=$# ;;
        --*=*) refuse "'$1': expected '${1%%=*} ${1#*=}', or after -- a flag of main.py" ;;
        *) refuse "unknown flag '$1': flags of main.py come after --" ;;
    esac
}

# Refuses what came after -- if it is one of the given flags of main.py, which the script gives.
keep_own() {
    local word own
    for word in ${more[@]+"${more[@]}"}; do
        for own in --phase --detector "$@"; do
            [ "${word%%=*}" != "$own" ] || refuse "$own: expected another flag after --; found one \
that the script gives itself"
        done
    done
}

# $1, names of GenImage's subsets with commas, in one order and each once.
subsets() {
    local name
    while IFS= read -r name; do
        case $name in
            '' | adm | biggan | glide | midjourney | sdv4 | sdv5 | vqdm | wukong) ;;
            *) refuse "--subset: expected adm, biggan, glide, midjourney, sdv4, sdv5, vqdm or \
wukong; found '$name'" ;;
        esac
    done < <(tr ', ' '\n\n' <<< "$1")
    tr ', ' '\n\n' <<< "$1" | sort -u | sed '/^$/d' | paste -sd , -
}

# Passes signal $1 on to what runs. Only the first goes to torchrun, which a second would keep from
# waiting for its processes; later ones go to these.
pass_on() {
    if [ -z "$asked" ] || [ -z "$gpus" ]; then
        kill -s "$1" "$child" 2>/dev/null || true
    else
        pkill -"$1" -P "$child" 2>/dev/null || true
    fi
    asked=${asked:-$1}
}

# Runs main.py with the given flags, then those that all scripts have, then what came after --. Ends
# the script where it fails, or where a signal came, which it waits out: what runs then saves its
# state.
step() {
    local status=0 flags=("$@") launch=("$python")
    if [ -n "$gpus" ]; then launch+=("$root/scripts/_launch.py" "$gpus"); fi
    if [ -n "$gpu" ]; then flags+=(--gpu "$gpu"); fi
    if [ -n "$again" ]; then flags+=("$again"); fi
    trap 'pass_on INT' INT
    trap 'pass_on TERM' TERM
    # In a process group of its own: Ctrl-C reaches it through the trap alone.
    set -m
    "${launch[@]}" "$root/main.py" "${flags[@]}" ${more[@]+"${more[@]}"} &
    child=$!
    set +m
    wait "$child" || status=$?
    # A signal ends the waiting, not the child.
    while kill -0 "$child" 2>/dev/null; do
        status=0
        wait "$child" || status=$?
    done
    trap - INT TERM
    [ "$status" -eq 0 ] || exit "$status"
    case $asked in
        INT) exit 130 ;;
        TERM) exit 143 ;;
    esac
}

# Looks whether a step finds all that it needs; ends the script where it does not.
check() {
    local several=$gpus
    gpus=''
    step "$@" --check > /dev/null
    gpus=$several
}

# The flags are read: what is wrong with them all is said before anything runs.
ready() {
    if [ -n "$gpus" ]; then
        [ -z "$gpu" ] || refuse "--gpu, --gpus: expected one of them; found both"
        [ "$gpus" -ge 1 ] || refuse "--gpus: expected 1 or more; found '$gpus'"
    fi
    if [ -z "$python" ]; then
        for python in "$root/.venv/bin/python" python3 python; do
            if command -v "$python" > /dev/null; then break; fi
        done
    fi
    command -v "$python" > /dev/null || refuse "expected Python as .venv/bin/python or PYTHON; \
found '$python', which is not there: bash scripts/setup.sh makes .venv"
}
