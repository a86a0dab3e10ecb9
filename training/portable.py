"""Portable checkpoints: a few tensors in small files that can be copied to another machine.

A folder holds `checkpoint.json`, which lists the parts with their SHA-256 and describes the
checkpoint, and the parts, consecutive pieces of one safetensors file.
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
_PART = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # file name of a part
_MAX_PARTS = 64  # 1 GiB, far more than any teacher needs


def write_portable(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint; if the process is killed, the old or the new one is whole.

    about: a JSON-serialisable description, returned by `read_portable`.
    """
    folder.resolve().mkdir(parents=True, exist_ok=True)  # it may be a link to a removed folder
    data = save({name: part.detach().cpu().contiguous() for name, part in tensors.items()})
    pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    stamp = hashlib.sha256(data).hexdigest()[:8]
    parts = {f"{stamp}.{number}": piece for number, piece in enumerate(pieces)}
    for name, piece in parts.items():
        unfinished = folder / f".{name}"
        unfinished.write_bytes(piece)
        unfinished.replace(folder / name)  # the earlier checkpoint may have the same part
    sync_tree(folder)
    digests = {name: hashlib.sha256(piece).hexdigest() for name, piece in parts.items()}
    index = {"about": dict(about), "parts": digests}
    write_whole(folder / _INDEX, json.dumps(index, indent=2) + "\n")
    for path in folder.iterdir():
        if path.name not in (*parts, _INDEX):
            path.unlink()


def has_portable(folder: Path) -> bool:
    """Whether the folder holds a checkpoint, which may be damaged."""
    return (folder / _INDEX).exists()


def read_portable(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the description given to `write_portable`.

    Raises TrainingError with the file's name if a file is missing or damaged.
    """
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        about, digests = dict(index["about"]), dict(index["parts"])
    except OSError as error:
        raise TrainingError(f"no portable checkpoint: {path} cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is not the index of a portable checkpoint") from error
    if not 0 < len(digests) <= _MAX_PARTS or not all(
        _PART.fullmatch(str(name)) for name in digests
    ):
        raise TrainingError(f"{path} lists no parts, too many, or invalid names")
    pieces = []
    for name, wanted in digests.items():
        try:
            with (folder / name).open("rb") as file:
                piece = file.read(PART_BYTES + 1)
        except OSError as error:
            raise TrainingError(f"{folder / name} is missing from the checkpoint") from error
        if len(piece) > PART_BYTES or hashlib.sha256(piece).hexdigest() != wanted:
            raise TrainingError(f"{folder / name} is damaged: its SHA-256 differs from {_INDEX}")
        pieces.append(piece)
    try:
        return load(b"".join(pieces)), about
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that PyTorch lacks
        raise TrainingError(f"the parts in {folder} do not form a safetensors file") from error
