"""Retrieval quality by each kind of output a model can be searched by, and the time it takes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.codes import pack_bits
from training.retrieval import Question, distinct, retrieval_by_bits, retrieval_by_features

Describe = Callable[[Tensor], dict[str, Tensor]]
_CHUNK = 256
_SAMPLE = 250  # queries ranked to estimate the time for all


def measure(describe: Describe, questions: Sequence[Question], device: str) -> dict[str, float]:
    """Measure retrieval and kNN accuracy, as `<question>_<what>_<measure>`.

    describe: maps (n, 32, 32, 3) uint8 on the device to rows by name, see Preset.describe.
    For codes and addresses, the number of distinct ones in each gallery is included.
    """
    metrics: dict[str, float] = {}
    for question in questions:
        gallery, queries = (
            describe_all(describe, part, device) for part in (question.gallery, question.queries)
        )
        for what, rows in gallery.items():
            measured = _retrieval(question, rows, queries[what], device)
            metrics |= {f"{question.name}_{what}_{name}": value for name, value in measured.items()}
        for what in (name for name in ("codes", "addresses") if name in gallery):
            packed = pack_bits(gallery[what].cpu().numpy().astype(np.uint8))
            metrics[f"{question.name}_distinct_{what}"] = distinct(packed)
    return metrics


def seconds_to_measure(describe: Describe, questions: Sequence[Question], device: str) -> float:
    """Estimate the seconds that `measure` will take."""
    if not questions:
        return 0.0
    seconds = 0.0
    per_image = seconds_of(lambda: describe_all(describe, _blank(), device)) / _CHUNK
    rows = describe_all(describe, _blank(), device)
    for question in questions:
        seconds += per_image * (len(question.gallery) + len(question.queries))
        labels = question.query_labels[: min(_SAMPLE, _CHUNK)]
        few = replace(question, query_labels=labels)
        for part in rows.values():
            gallery = part.repeat(-(-len(question.gallery) // _CHUNK), 1)[: len(question.gallery)]
            queries = part[: len(labels)]
            once = seconds_of(lambda g=gallery, q=queries, f=few: _retrieval(f, g, q, device))  # type: ignore[misc]
            seconds += once * -(-len(question.queries) // len(labels))
    return seconds


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of the second of two calls, including waiting for a GPU; the first call is slower."""
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
def describe_all(describe: Describe, images: NDArray[np.uint8], device: str) -> dict[str, Tensor]:
    """Describe (n, 32, 32, 3) uint8 images, n > 0, in chunks; returns n rows by name."""
    chunks = [
        describe(torch.from_numpy(images[start : start + _CHUNK]).to(device))
        for start in range(0, len(images), _CHUNK)
    ]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _retrieval(
    question: Question, gallery: Tensor, queries: Tensor, device: str
) -> dict[str, float]:
    if gallery.dtype != torch.bool:
        return retrieval_by_features(question, gallery, queries)
    bits = [part.cpu().numpy().astype(np.uint8) for part in (gallery, queries)]
    return retrieval_by_bits(question, bits[0], bits[1], device)
