#!/usr/bin/env bash
# Makes .venv from the committed lock.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage='Makes .venv from the committed lock. Needs Python 3.11 or newer with pip, and nothing else.

  bash scripts/setup.sh          what it takes to score, evaluate, train and serve pages
  bash scripts/setup.sh --dev    the same, and the test and lint tools
  bash scripts/setup.sh --all    the same, and every extra (TensorBoard, Parquet, ...)

PYTHON=/path/to/python3 names another Python than python3.'
options=(--frozen)
case "${1:-}" in
    "") options+=(--extra plots --extra pages) ;;
    --dev) options+=(--extra plots --extra pages --group dev) ;;
    --all) options+=(--group dev --all-extras) ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "setup.sh: expected nothing, --dev, --all or --help; found '$1'" >&2; exit 2 ;;
esac
if [ $# -gt 1 ]; then
    echo "setup.sh: expected one flag; found also '$2'" >&2
    exit 2
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup.sh: '$python' is not Python 3.11 or newer; name one: PYTHON=/path/to/python3 bash scripts/setup.sh" >&2
    exit 2
fi

# uv goes to a folder of its own: pip refuses to touch many systems' own Python.
if command -v uv >/dev/null 2>&1; then
    uv=(uv)
else
    [ -x .uv/bin/uv ] || "$python" -m pip install --quiet --disable-pip-version-check --target .uv uv
    uv=(.uv/bin/uv)
fi
echo "setup.sh: installing into .venv (the first time downloads PyTorch)" >&2
"${uv[@]}" sync --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" "${options[@]}"
