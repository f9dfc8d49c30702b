# What the shell scripts of the recipes share; they set `program` and `usage`, then source it.
# shellcheck shell=bash disable=SC2154
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-}
if [ -z "$python" ]; then
    if [ -x "$root/.venv/bin/python" ]; then python=$root/.venv/bin/python; else python=python; fi
fi
launch=("$python")
gpu='' gpus='' again=''
more=()  # what came after --

# One line, and status 2.
refuse() {
    echo "$program: $1; --help lists the flags" >&2
    exit 2
}

# The value of flag $1, of which there are $2 words left, itself the first.
need() {
    [ "$2" -ge 2 ] || refuse "$1: expected a value; found none"
}

# A flag that all scripts have, and what follows it. Sets `taken`: how many words it was.
# shellcheck disable=SC2034
shared_flag() {
    taken=2
    case $1 in
        --gpu | --gpus)
            need "$1" $#
            [[ $2 =~ ^[0-9]{1,4}$ ]] || refuse "$1: expected a whole number; found '$2'"
            if [ "$1" = --gpu ]; then gpu=$2; else gpus=$2; fi ;;
        --resume | --overwrite)
            [ "${again:-$1}" = "$1" ] || refuse "--resume, --overwrite: expected one; found both"
            again=$1 taken=1 ;;
        --help | -h) echo "$usage"; exit 0 ;;
        --) more=("${@:2}"); taken=$# ;;
        *) refuse "unknown flag '$1': flags of main.py come after --" ;;
    esac
}

# Runs main.py with the given flags, then those that all scripts have, then what came after --. Ends
# the script where it fails. A signal to the script stops it too, after its checkpoint.
step() {
    local status=0 flags=("$@")
    if [ -n "$gpus" ]; then
        [ -z "$gpu" ] || refuse "--gpu, --gpus: expected one of them; found both"
        [ "$gpus" -ge 1 ] || refuse "--gpus: expected 1 or more; found '$gpus'"
        launch=("$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus")
    fi
    if [ -n "$gpu" ]; then flags+=(--gpu "$gpu"); fi
    if [ -n "$again" ]; then flags+=("$again"); fi
    "${launch[@]}" "$root/main.py" "${flags[@]}" ${more[@]+"${more[@]}"} &
    local child=$!
    trap 'kill -TERM "$child" 2>/dev/null || true' INT TERM
    wait "$child" || status=$?
    # A signal ends the waiting, not the child.
    while kill -0 "$child" 2>/dev/null; do
        status=0
        wait "$child" || status=$?
    done
    trap - INT TERM
    [ "$status" -eq 0 ] || exit "$status"
}
