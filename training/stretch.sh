#!/usr/bin/env bash
# One stretch of a training on a borrowed machine.
#
#   bash training/stretch.sh FOLDER OUT teacher --data cifar10 cifar100 --minutes 9.2
#
# FOLDER holds data/, made by `python -m training.pack`, and, to continue an earlier stretch,
# its checkpoint in portable/. The arguments after OUT go to `hashsearch train`, the preset
# first. The machine needs Python, PyTorch, NumPy, Pillow, safetensors and rich, but no network.
# During training, OUT/portable holds the last portable checkpoint. At the end, OUT holds the
# model instead, as teacher.tar.00 and so on, at most 16 MiB each (`cat teacher.tar.* | tar x`).
# The exact state stays on the machine in $STRETCH_WORK, and a second call continues from it.
# A finished model stays there too, in done/.
set -euo pipefail
mkdir -p "$2" "${STRETCH_WORK:=/tmp/stretch}"
folder=$(realpath "$1") out=$(realpath "$2") work=$(realpath "$STRETCH_WORK") name=$3
shift 2
root=$(realpath "$(dirname "$0")/..")
export HASHSEARCH_DATA=$folder/data PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [ ! -d "$work/$name" ]; then # it exists if a call was killed after the training
  mkdir -p "$work/$name.training" "$out/portable"
  if [ -e "$folder/portable/checkpoint.json" ] && [ ! -e "$out/portable/checkpoint.json" ]; then
    cp "$folder"/portable/* "$out/portable"
  fi
  ln -sfn "$out/portable" "$work/$name.training/portable"
  "${PYTHON:-python3}" -m hashsearch.cli train "$@" --out "$work/$name" --resume
fi
tar -C "$work" -cf - "$name" | split -b 16M -d - "$out/$name.tar."
rm -rf "$out/portable" "$work/done/$name" # a teacher's folder also has the checkpoint
mkdir -p "$work/done"
mv "$work/$name" "$work/done/"
