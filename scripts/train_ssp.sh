#!/usr/bin/env bash
# SSP as published, on one or more subsets of GenImage.
set -euo pipefail
program=train_ssp.sh
usage='bash scripts/train_ssp.sh --subset NAME[,NAME] [--backbone_weights FILE] [--published]
                            [--gpu N | --gpus N] [--output DIR] [--resume | --overwrite] [-- FLAGS]

Trains SSP as published: 30 epochs, the epoch of the best validation accuracy is kept.

  --subset NAMES           of GenImage, below data/GenImage or -- --data_root DIR: adm, biggan,
                           glide, midjourney, sdv4, sdv5, vqdm, wukong
  --backbone_weights FILE  a ResNet-50 of ImageNet, which the published training starts from; left
                           out: from scratch
  --published              choose the epoch by the test pictures of these subsets, as published;
                           left out: by a tenth of the training pictures
  --gpu N                  the GPU (the first; without any the CPU)
  --gpus N                 so many processes, each on a GPU of its own, by torchrun; each takes
                           batches of 64, unless -- --batch_size N says otherwise
  --output DIR             where weights and log go (runs/ssp/NAMES)
  --resume, --overwrite    go on with an interrupted run, or start afresh
  -- FLAGS                 more flags of main.py
data/ and runs/ are those of the current folder. Python is the one in .venv, or that of PYTHON.
scripts/test_ssp.sh measures the result.'
# shellcheck source=scripts/_shell.sh
source "$(dirname "${BASH_SOURCE[0]}")/_shell.sh"

subset='' output='' flags=()
while [ $# -gt 0 ]; do
    case $1 in
        --subset) need "$1" $# "${2-}"; subset=$2; shift 2 ;;
        --backbone_weights) need "$1" $# "${2-}"; flags+=("$1" "$2"); shift 2 ;;
        --published) flags+=(--set data.val_split=val); shift ;;
        --output) need "$1" $# "${2-}"; output=$2; shift 2 ;;
        *) shared_flag "$@"; shift "$taken" ;;
    esac
done
[ -n "$subset" ] || refuse "--subset: expected one of GenImage's subsets, such as sdv4; found none"
subset=$(subsets "$subset")
keep_own --benchmark --generators --output
ready

step --phase train --detector ssp --benchmark genimage --generators "$subset" \
    --output "${output:-runs/ssp/$subset}" ${flags[@]+"${flags[@]}"}
