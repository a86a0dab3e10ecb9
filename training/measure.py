"""What a model finds, by each of the things it can be searched by, and how long that takes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.codes import pack_bits
from training.retrieval import Labelled, distinct, retrieval_by_bits, retrieval_by_features

Describe = Callable[[Tensor], dict[str, Tensor]]
_CHUNK = 256
_SAMPLE = 250  # queries ranked to see how long all take


def measure(describe: Describe, questions: Sequence[Labelled], device: str) -> dict[str, float]:
    """Retrieval and kNN accuracy, as `<question>_<what>_<measure>`.

    describe: (n, 32, 32, 3) uint8 on the device to rows by name, see Preset.describe. Of
    addresses, the number of distinct ones in each gallery is counted as well.
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


def seconds_to_measure(describe: Describe, questions: Sequence[Labelled], device: str) -> float:
    """About how long `measure` will take."""
    if not questions:
        return 0.0
    seconds = 0.0
    an_image = seconds_of(lambda: _described(describe, _blank(), device)) / _CHUNK
    rows = _described(describe, _blank(), device)
    for asked in questions:
        seconds += an_image * (len(asked.gallery) + len(asked.queries))
        labels = asked.query_labels[: min(_SAMPLE, _CHUNK)]
        few = replace(asked, query_labels=labels)
        for part in rows.values():
            gallery = part.repeat(-(-len(asked.gallery) // _CHUNK), 1)[: len(asked.gallery)]
            own = part[: len(labels)]
            once = seconds_of(lambda g=gallery, q=own, f=few: _retrieval(f, g, q, device))  # type: ignore[misc]
            seconds += once * -(-len(asked.queries) // len(labels))
    return seconds


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that `work` takes the second time, a GPU waited for; the first one is slow."""
    for _ in range(2):
        started = time.monotonic()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent = time.monotonic() - started
    return spent


def _blank() -> NDArray[np.uint8]:
    return np.zeros((_CHUNK, 32, 32, 3), np.uint8)


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
