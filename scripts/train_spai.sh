#!/usr/bin/env bash
# SPAI as published, on the pictures of a CSV.
set -euo pipefail
program=train_spai.sh
usage='bash scripts/train_spai.sh --csv FILE [--backbone_weights FILE] [--gpu N | --gpus N]
                             [--output DIR] [--resume | --overwrite] [-- FLAGS]

Trains SPAI as published: 35 epochs, the epoch of the lowest validation loss is kept.

  --csv FILE               columns image,class,split with the splits train and val; paths start from
                           the folder of the CSV, or from -- --csv_root DIR
  --backbone_weights FILE  the ViT that frequency masking trained (mfm_pretrain_vit_base.pth); left
                           out: from scratch, the ViT too, which then takes several times as long
  --gpu N                  the GPU (the first; without any the CPU)
  --gpus N                 so many processes, each on a GPU of its own, by torchrun; each takes
                           batches of 72, unless -- --batch_size N says otherwise
  --output DIR             where weights and log go (runs/spai/train)
  --resume, --overwrite    go on with an interrupted run, or start afresh
  -- FLAGS                 more flags of main.py, such as
                             -- --save_all --accumulate 4 --batch_size 18 --test_csv a.csv b.csv
runs/ is that of the current folder. Python is the one in .venv, or that of PYTHON.'
# shellcheck source=scripts/_shell.sh
source "$(dirname "${BASH_SOURCE[0]}")/_shell.sh"

csv='' flags=()
while [ $# -gt 0 ]; do
    case $1 in
        --csv) need "$1" $# "${2-}"; csv=$2; shift 2 ;;
        --backbone_weights | --output) need "$1" $# "${2-}"; flags+=("$1" "$2"); shift 2 ;;
        *) shared_flag "$@"; shift "$taken" ;;
    esac
done
[ -n "$csv" ] || refuse "--csv: expected a CSV with the columns image,class,split; found none"
keep_own --data
ready

step --phase train --detector spai --data "$csv" ${flags[@]+"${flags[@]}"}
