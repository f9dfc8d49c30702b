#!/usr/bin/env bash
# CO-SPY as published: the artifact branch, the semantic branch, and the fusion of both.
set -euo pipefail
program=train.sh
usage='bash train.sh [--dataset sd-v1_4|progan] [--gpu N | --gpus N] [--leak_free]
              [--resume | --overwrite] [-- FLAGS]

Trains CO-SPY as published: artifact branch (20 epochs), semantic branch (10, on sd-v1_4 with
--feat_interp), fusion (1 epoch). Weights go to ckpt/<dataset>/{artifact,semantic,fusion}/, where
  python main.py --phase eval --train_dataset <dataset>
finds them.

  --dataset NAME  what to train on (sd-v1_4): DRCT-2M below data/train/sd-v1_4, or progan: CNNDet
                  below data/train/progan
  --gpu N         the GPU (the first; without any the CPU)
  --gpus N        so many processes, each on a GPU of its own, by torchrun; each takes batches of
                  32, unless -- --batch_size N says otherwise (published: one GPU)
  --leak_free     the fusion learns from one half of the val split and is chosen by the other;
                  published: all of it for both
  --resume        go on where an earlier call was interrupted; what it finished is not done again
  --overwrite     start afresh
  -- FLAGS        more flags of main.py, given to each step, such as
                    -- --data_root DIR --ckpt DIR --backbone_weights FILE FILE --workers 8
data/ and ckpt/ are those of the current folder. The frozen encoders come from
  python scripts/fetch_weights.py siglip-so400m-384 sd-v1_4-vae      (sd-v1_4)
  python scripts/fetch_weights.py clip-vit-l-14                      (progan)
or from --backbone_weights.
Python is the one in .venv, or that of PYTHON.'
# shellcheck source=scripts/_shell.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/_shell.sh"

dataset=sd-v1_4 fusion=()
while [ $# -gt 0 ]; do
    case $1 in
        --dataset) need "$1" $# "${2-}"; dataset=$2; shift 2 ;;
        --leak_free) fusion=(--leak_free); shift ;;
        *) shared_flag "$@"; shift "$taken" ;;
    esac
done
case $dataset in
    sd-v1_4) mixing=(--feat_interp) ;;
    progan) mixing=() ;;
    *) refuse "--dataset: expected sd-v1_4 or progan; found '$dataset'" ;;
esac

keep_own --train_dataset --mode --branch --weights --output
ready

common=(--phase train --train_dataset "$dataset")
artifact=("${common[@]}" --mode branch --branch artifact --epochs 20)
semantic=("${common[@]}" --mode branch --branch semantic --epochs 10 ${mixing[@]+"${mixing[@]}"})
# What the second step lacks should not come to light after the first, which takes days.
check "${artifact[@]}"
check "${semantic[@]}"
step "${artifact[@]}"
step "${semantic[@]}"
step "${common[@]}" --mode fusion --epochs 1 ${fusion[@]+"${fusion[@]}"}
