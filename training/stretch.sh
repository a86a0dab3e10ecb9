#!/usr/bin/env bash
# A stretch of training on a borrowed machine: what is there is used, what comes of it is carried.
#
#   bash training/stretch.sh FOLDER OUT teacher --data cifar10 cifar100 --minutes 9.5
#
# FOLDER holds data/, made by `python -m training.pack`, and portable/, the checkpoint of an
# earlier stretch, where this one goes on with it. Whatever follows OUT is for `hashsearch train`.
# The machine needs Python, PyTorch, NumPy, Pillow, safetensors and rich, and no network.
# While it trains, OUT/portable has the last portable checkpoint; at the end OUT has the model
# instead, as teacher.tar.00 and so on, of 16 MiB at most (`cat teacher.tar.* | tar x`).
# The exact state stays on the machine, in $STRETCH_WORK, for a second call.
set -euo pipefail
folder=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
shift 2
work=${STRETCH_WORK:-/tmp/stretch}
export HASHSEARCH_DATA=$folder/data PYTHONUNBUFFERED=1
mkdir -p "$work/teacher.training" "$out/portable"
if [ -d "$folder/portable" ]; then cp "$folder"/portable/* "$out/portable"; fi
ln -sfn "$out/portable" "$work/teacher.training/portable"
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m hashsearch.cli train "$@" --out "$work/teacher" --resume
tar -C "$work" -cf - teacher | split -b 16M -d - "$out/teacher.tar."
rm -r "$out/portable" # the model has it too
