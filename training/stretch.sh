#!/usr/bin/env bash
# A stretch of training on a borrowed machine.
#
#   bash training/stretch.sh FOLDER OUT teacher --data cifar10 cifar100 --minutes 9.2
#
# FOLDER holds data/, made by `python -m training.pack`, and portable/, the checkpoint of an
# earlier stretch, where this one goes on with it. What follows OUT is for `hashsearch train`,
# the preset first. The machine needs Python, PyTorch, NumPy, Pillow, safetensors and rich, and
# no network.
# While it trains, OUT/portable has the last portable checkpoint; at the end OUT has the model
# instead, as teacher.tar.00 and so on, of 16 MiB at most (`cat teacher.tar.* | tar x`).
# The exact state stays on the machine, in $STRETCH_WORK, and a second call goes on with it;
# a finished model stays there too, in done/.
set -euo pipefail
mkdir -p "$2" "${STRETCH_WORK:=/tmp/stretch}"
folder=$(realpath "$1") out=$(realpath "$2") work=$(realpath "$STRETCH_WORK") name=$3
shift 2
root=$(realpath "$(dirname "$0")/..")
export HASHSEARCH_DATA=$folder/data PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [ ! -d "$work/$name" ]; then # it is there where a call was killed after the training
  mkdir -p "$work/$name.training" "$out/portable"
  if [ -e "$folder/portable/checkpoint.json" ] && [ ! -e "$out/portable/checkpoint.json" ]; then
    cp "$folder"/portable/* "$out/portable"
  fi
  ln -sfn "$out/portable" "$work/$name.training/portable"
  "${PYTHON:-python3}" -m hashsearch.cli train "$@" --out "$work/$name" --resume
fi
tar -C "$work" -cf - "$name" | split -b 16M -d - "$out/$name.tar."
rm -rf "$out/portable" "$work/done/$name" # a teacher has the checkpoint too
mkdir -p "$work/done"
mv "$work/$name" "$work/done/"
