"""Checkpoints that travel: a few tensors in files small enough to be carried.

A folder holds `checkpoint.json`, which names the parts, their SHA-256 and what the
checkpoint is of, and the parts: the bytes of one safetensors file, cut.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hashsearch.durable import sync_tree, write_whole
from hashsearch.errors import TrainingError

PART_BYTES = 16 * 2**20
_INDEX = "checkpoint.json"
_PART = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # a name
_MOST_PARTS = 64  # 1 GiB, which no teacher comes near


def write_portable(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of an earlier one; a kill leaves one of the two whole.

    about: anything that JSON can hold, returned by `read_portable`.
    """
    folder.resolve().mkdir(parents=True, exist_ok=True)  # it may be a link to one carried off
    data = save({name: part.detach().cpu().contiguous() for name, part in tensors.items()})
    cuts = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    stamp = hashlib.sha256(data).hexdigest()[:8]
    parts = {f"{stamp}.{number}": cut for number, cut in enumerate(cuts)}
    for name, cut in parts.items():
        unfinished = folder / f".{name}"
        unfinished.write_bytes(cut)
        unfinished.replace(folder / name)  # which may be a part of the earlier one, and equal
    sync_tree(folder)
    sums = {name: hashlib.sha256(cut).hexdigest() for name, cut in parts.items()}
    index = {"about": dict(about), "parts": sums}
    write_whole(folder / _INDEX, json.dumps(index, indent=2) + "\n")
    for path in folder.iterdir():
        if path.name not in (*parts, _INDEX):
            path.unlink()


def has_portable(folder: Path) -> bool:
    """Whether a checkpoint lies there, whole or not."""
    return (folder / _INDEX).exists()


def read_portable(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and what was noted about them.

    Raises TrainingError, naming the file, if one is missing or damaged.
    """
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        about, sums = dict(index["about"]), dict(index["parts"])
    except OSError as error:
        raise TrainingError(f"{path}: there is no portable checkpoint") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is not the index of a portable checkpoint") from error
    if not 0 < len(sums) <= _MOST_PARTS or not all(_PART.fullmatch(str(name)) for name in sums):
        raise TrainingError(f"{path} names parts that no portable checkpoint has")
    cuts = []
    for name, wanted in sums.items():
        try:
            with (folder / name).open("rb") as file:
                cut = file.read(PART_BYTES + 1)
        except OSError as error:
            raise TrainingError(f"{folder / name} is missing from the checkpoint") from error
        if len(cut) > PART_BYTES or hashlib.sha256(cut).hexdigest() != wanted:
            raise TrainingError(f"{folder / name} is damaged: its SHA-256 is not that in {_INDEX}")
        cuts.append(cut)
    try:
        return load(b"".join(cuts)), about
    except (SafetensorError, KeyError) as error:  # KeyError: a type that PyTorch lacks
        raise TrainingError(f"the parts in {folder} are not a safetensors file") from error
