#!/usr/bin/env bash
# Checks and measures every detector on one GPU, in at most 8 minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage='Checks and measures every detector on one GPU, in at most 8 minutes: the tests marked gpu, scores
in bf16 and fp16 against those of fp32 on the CPU, pictures a second, busy share and memory, training
steps. Writes gpu_check.json and gpu_check.md.

  bash scripts/gpu_check.sh [--wheels DIR] [--output DIR] [--seconds N] [--device cuda|cpu] [--tiny]

  --wheels DIR    for a machine without a network, with a PyTorch of its own: the other packages, which
                  a first run without it lists
  --output DIR    where the two files go (runs/gpu_check)
  --seconds N     for all steps together (480)
  --device cpu --tiny    a rehearsal without a GPU, on small networks

PYTHON=/path/to/python3 names another Python than .venv'\''s, or else python3. Exit status: 0 every step
went well; 1 one did not, as its row says; 2 wrong usage, or packages are missing.'
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
wheels=""
words=()
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) echo "$usage"; exit 0 ;;
        --wheels) wheels=${2:?gpu_check.sh: --wheels: expected a folder}; shift 2 ;;
        *) words+=("$1"); shift ;;
    esac
done

if [ -n "$wheels" ]; then
    # Beside the machine's own packages, so that its PyTorch serves.
    "$python" -m venv --system-site-packages .venv-gpu
    python=.venv-gpu/bin/python
    mapfile -t missing < <("$python" scripts/_wheels_needed.py)
    if [ ${#missing[@]} -gt 0 ]; then
        "$python" -m pip install --quiet --no-index --no-deps --find-links "$wheels" "${missing[@]}" >&2 || exit 2
    fi
fi
mapfile -t missing < <("$python" scripts/_wheels_needed.py)
if [ ${#missing[@]} -gt 0 ]; then
    echo "gpu_check.sh: expected packages that $python lacks; found none of these: put their wheels into a folder by" >&2
    echo "  pip download --no-deps --dest wheels ${missing[*]}" >&2
    echo "and name it by --wheels" >&2
    exit 2
fi
export OMP_WAIT_POLICY=passive
exec "$python" scripts/_gpu_check.py "${words[@]}"
