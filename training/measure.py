"""What a model finds, by each of the things it can be searched by, and how long that takes."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.codes import pack_bits
from training.retrieval import Labelled, distinct, retrieval_by_bits, retrieval_by_features

Describe = Callable[[Tensor], dict[str, Tensor]]
_CHUNK = 256
_SAMPLE = 20  # queries ranked to see how long one takes


def measure(describe: Describe, questions: Sequence[Labelled], device: str) -> dict[str, float]:
    """Retrieval and kNN accuracy, as `<question>_<what>_<measure>`.

    describe: (n, 32, 32, 3) uint8 on the device to rows by name, see Preset.describe. Of
    addresses, how many are distinct in each gallery is told as well.
    """
    found: dict[str, float] = {}
    for asked in questions:
        gallery, queries = (
            _described(describe, part, device) for part in (asked.gallery, asked.queries)
        )
        for what, rows in gallery.items():
            measured = _retrieval(asked, rows, queries[what], device)
            found |= {f"{asked.name}_{what}_{name}": value for name, value in measured.items()}
        if "addresses" in gallery:
            packed = pack_bits(gallery["addresses"].cpu().numpy().astype(np.uint8))
            found[f"{asked.name}_distinct_addresses"] = distinct(packed)
    return found


def seconds_to_measure(
    describe: Describe, questions: Sequence[Labelled], device: str, *, more: int = 0
) -> float:
    """About how long `measure` will take, and describing so many more images beside."""
    if not questions and not more:
        return 0.0
    blank = np.zeros((_CHUNK, 32, 32, 3), np.uint8)
    for _ in range(2):  # the first time is slow
        started = time.monotonic()
        rows = _described(describe, blank, device)
        an_image = (time.monotonic() - started) / _CHUNK
    seconds = an_image * more
    for asked in questions:
        seconds += an_image * (len(asked.gallery) + len(asked.queries))
        few = Labelled(
            asked.name,
            asked.gallery,
            asked.gallery_labels,
            asked.queries[:_SAMPLE],
            asked.query_labels[:_SAMPLE],
        )
        for part in rows.values():
            started = time.monotonic()
            shape = (len(asked.gallery), part.shape[1])
            repeated = part[:1].expand(shape)
            _retrieval(few, repeated, part[: len(few.queries)], device)
            seconds += (time.monotonic() - started) / len(few.queries) * len(asked.queries)
    return seconds


@torch.no_grad()
def _described(describe: Describe, images: NDArray[np.uint8], device: str) -> dict[str, Tensor]:
    chunks = [
        describe(torch.from_numpy(images[start : start + _CHUNK]).to(device))
        for start in range(0, len(images), _CHUNK)
    ]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _retrieval(asked: Labelled, gallery: Tensor, queries: Tensor, device: str) -> dict[str, float]:
    if gallery.dtype != torch.bool:
        return retrieval_by_features(asked, gallery, queries)
    bits = [part.cpu().numpy().astype(np.uint8) for part in (gallery, queries)]
    return retrieval_by_bits(asked, bits[0], bits[1], device)
