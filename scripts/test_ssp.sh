#!/usr/bin/env bash
# SSP on all eight subsets of GenImage.
set -euo pipefail
program=test_ssp.sh
usage='bash scripts/test_ssp.sh [--subset NAME[,NAME]] [--weights FILE] [--gpu N | --gpus N]
                           [--output DIR] [--resume | --overwrite] [-- FLAGS]

Measures SSP on the test pictures of all eight subsets of GenImage, below data/GenImage or
-- --data_root DIR.

  --subset NAMES         what it was trained on: takes the weights that scripts/train_ssp.sh left in
                         runs/ssp/NAMES, and shows the published figures of that subset
  --weights FILE         other weights
  --gpu N                the GPU (the first; without any the CPU)
  --gpus N               so many processes, each on a GPU of its own, by torchrun
  --output DIR           where results go (runs/ssp/NAMES/genimage, or runs/ssp/genimage)
  --resume, --overwrite  go on with an interrupted run, or start afresh
  -- FLAGS               more flags of main.py, such as -- --protocol matched
data/ and runs/ are those of the current folder. Python is the one in .venv, or that of PYTHON.'
# shellcheck source=scripts/_shell.sh
source "$(dirname "${BASH_SOURCE[0]}")/_shell.sh"

subset='' weights='' output='' flags=()
while [ $# -gt 0 ]; do
    case $1 in
        --subset) need "$1" $# "${2-}"; subset=$2; shift 2 ;;
        --weights) need "$1" $# "${2-}"; weights=$2; shift 2 ;;
        --output) need "$1" $# "${2-}"; output=$2; shift 2 ;;
        *) shared_flag "$@"; shift "$taken" ;;
    esac
done
if [ -z "$subset$weights" ]; then refuse "expected --subset or --weights; found neither"; fi
if [ -n "$subset" ]; then subset=$(subsets "$subset"); fi
keep_own --benchmark --weights --output
ready

# Published figures are of detectors that were trained on one subset.
if [[ $subset =~ ^[a-z0-9]+$ ]]; then flags+=(--set "data.published=ssp-$subset"); fi
step --phase eval --detector ssp --benchmark genimage \
    --weights "${weights:-runs/ssp/$subset/best.safetensors}" \
    --output "${output:-runs/ssp/${subset:+$subset/}genimage}" ${flags[@]+"${flags[@]}"}
