#!/usr/bin/env bash
# A detector on Fake2M, measured on MPBench.
set -euo pipefail
program=train_fake2m.sh
usage='bash scripts/train_fake2m.sh --reals NAME=PATH[,NAME=PATH] [--detector NAME]
                               [--backbone_weights FILE] [--test_reals NAME=PATH[,NAME=PATH]]
                               [--gpu N | --gpus N] [--output DIR] [--resume | --overwrite]
                               [-- FLAGS]

Trains a detector on the synthetic pictures of Fake2M, below data/FakeImageDataset or
-- --data_root DIR, and real ones of yours; then measures it on MPBench, where that is there.

  --reals NAMES            real pictures, folders, CSV files or archives, each with a name: in the
                           paper the first million of CC3M, as cc3m=DIR
  --detector NAME          classifier (any network of timm), default, spai, ssp or ssp_baseline
                           (classifier)
  --backbone_weights FILE  what it starts from (for classifier: convnext-small-imagenet)
  --test_reals NAMES       real pictures to measure with on MPBench; left out: fakes alone, the
                           share that is detected
  --gpu N                  the GPU (the first; without any the CPU)
  --gpus N                 so many processes, each on a GPU of its own, by torchrun
  --output DIR             where weights and log go (runs/DETECTOR/fake2m); results to DIR/mpbench
  --resume, --overwrite    go on with an interrupted run, or start afresh
  -- FLAGS                 more flags of main.py, of both steps, such as
                             -- --set classifier.network=resnet50
data/ and runs/ are those of the current folder. Python is the one in .venv, or that of PYTHON.'
# shellcheck source=scripts/_shell.sh
source "$(dirname "${BASH_SOURCE[0]}")/_shell.sh"

detector=classifier reals='' test_reals='' backbone='' output=''
while [ $# -gt 0 ]; do
    case $1 in
        --reals) need "$1" $# "${2-}"; reals=$2; shift 2 ;;
        --test_reals) need "$1" $# "${2-}"; test_reals=$2; shift 2 ;;
        --backbone_weights) need "$1" $# "${2-}"; backbone=$2; shift 2 ;;
        --output) need "$1" $# "${2-}"; output=$2; shift 2 ;;
        --detector)
            need "$1" $# "${2-}"; detector=$2; shift 2
            case $detector in
                classifier | default | spai | ssp | ssp_baseline) ;;
                *) refuse "--detector: expected classifier, default, spai, ssp or ssp_baseline; \
found '$detector'" ;;
            esac ;;
        *) shared_flag "$@"; shift "$taken" ;;
    esac
done
[ -n "$reals" ] || refuse "--reals: expected NAME=PATH, such as cc3m=DIR; found none"
keep_own --benchmark --weights --output
ready

output=${output:-runs/$detector/fake2m}
start=()
# A published recipe of a detector of the house stays its own; only the classifier has one for these.
if [ "$detector" = classifier ]; then
    start=(--config "$root/configs/fake2m.yaml")
    backbone=${backbone:-convnext-small-imagenet}
fi
if [ -n "$backbone" ]; then start+=(--backbone_weights "$backbone"); fi
step --phase train --detector "$detector" --benchmark fake2m --set "data.reals=$reals" \
    --output "$output" ${start[@]+"${start[@]}"}

if [ -n "$test_reals" ]; then test_reals="data.reals=$test_reals"; fi
step --phase eval --detector "$detector" --benchmark mpbench --weights "$output/best.safetensors" \
    --output "$output/mpbench" ${test_reals:+--set "$test_reals"}
