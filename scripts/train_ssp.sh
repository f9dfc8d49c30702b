#!/usr/bin/env bash
# SSP, on one or more subsets of GenImage.
set -euo pipefail
program=train_ssp.sh
usage='bash scripts/train_ssp.sh --subset NAME[,NAME] [--detector NAME] [--backbone_weights FILE]
                            [--published | --published_trained]
                            [--gpu N | --gpus N] [--output DIR] [--resume | --overwrite] [-- FLAGS]

       bash scripts/train_ssp.sh all [FLAGS]

Trains SSP: 30 epochs, the epoch of the best validation accuracy is kept; as published, and with
--published also by the pictures that choose the epoch. "all" trains on each of the eight subsets,
one after the other, and measures each on all eight; it passes over what is finished, and goes on
where it was interrupted. scripts/ssp_table.py makes a table of that.

  --subset NAMES           of GenImage, below data/GenImage or -- --data_root DIR: adm, biggan,
                           glide, midjourney, sdv4, sdv5, vqdm, wukong
  --detector NAME          ssp, or ssp_baseline, the plain ResNet-50 of its table (ssp)
  --backbone_weights FILE  a ResNet-50 of ImageNet, which the published training starts from; left
                           out: from scratch
  --published              choose the epoch by the test pictures of all eight subsets, as
                           published; left out: by a tenth of the training pictures
  --published_trained      choose it by the test pictures of the subsets that are trained on
  --gpu N                  the GPU (the first; without any the CPU)
  --gpus N                 so many processes, each on a GPU of its own, by torchrun; each takes
                           batches of 64, unless -- --batch_size N says otherwise
  --output DIR             where weights and log go (runs/DETECTOR/NAMES, where
                           "all" puts them)
  --resume, --overwrite    go on with an interrupted run, or start afresh
  -- FLAGS                 more flags of main.py
data/ and runs/ are those of the current folder. Python is the one in .venv, or that of PYTHON.
scripts/test_ssp.sh measures the result.'
# shellcheck source=scripts/_shell.sh
source "$(dirname "${BASH_SOURCE[0]}")/_shell.sh"

subset='' output='' detector=ssp published='' flags=()
if [ "${1-}" = all ]; then subset=all; shift; fi
while [ $# -gt 0 ]; do
    case $1 in
        --subset)
            [ "$subset" != all ] || refuse "--subset: expected one of all and --subset; found both"
            need "$1" $# "${2-}"; subset=$2; shift 2 ;;
        --detector)
            need "$1" $# "${2-}"; detector=$2; shift 2
            case $detector in
                ssp | ssp_baseline) ;;
                *) refuse "--detector: expected ssp or ssp_baseline; found '$detector'" ;;
            esac ;;
        --backbone_weights) need "$1" $# "${2-}"; flags+=("$1" "$2"); shift 2 ;;
        --published | --published_trained)
            [ "${published:-$1}" = "$1" ] || \
                refuse "--published, --published_trained: expected one; found both"
            published=$1; shift ;;
        --output) need "$1" $# "${2-}"; output=$2; shift 2 ;;
        *) shared_flag "$@"; shift "$taken" ;;
    esac
done
[ -n "$subset" ] || refuse "--subset: expected one of GenImage's subsets, such as sdv4; found none"
if [ "$subset" = all ]; then
    [ -z "$output$again" ] || refuse "all: expected no --output, --resume or --overwrite; found one"
else
    subset=$(subsets "$subset")
fi
case $published in
    --published) flags+=(--set data.val_split=val --set data.val_generators=all) ;;
    --published_trained) flags+=(--set data.val_split=val) ;;
esac
keep_own --benchmark --generators --output
ready

# Trains on subset $1 into folder $2.
train() {
    step --phase train --detector "$detector" --benchmark genimage --generators "$1" \
        --output "$2" ${flags[@]+"${flags[@]}"}
}

if [ "$subset" != all ]; then
    train "$subset" "${output:-runs/$detector/$subset}"
    exit
fi
for name in midjourney sdv4 sdv5 adm glide wukong vqdm biggan; do
    folder=runs/$detector/$name
    # A run that has begun goes on; a finished one says so and ends at once.
    again=''
    if [ -e "$folder/run.json" ] || [ -e "$folder/last.pt" ]; then again=--resume; fi
    train "$name" "$folder"
    again=''
    if [ -e "$folder/genimage/run.json" ]; then again=--resume; fi
    step --phase eval --detector "$detector" --benchmark genimage \
        --weights "$folder/best.safetensors" --output "$folder/genimage"
done
