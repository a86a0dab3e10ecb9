"""Measure one method on one task: its accuracy, the confidence of that, and its cost."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import unpack_bits
from hashsearch.evaluation.comparisons import Searchable
from hashsearch.evaluation.measured import Describe, Examples, MeasuredMethod
from hashsearch.evaluation.ranking import rank
from hashsearch.evaluation.robustness import evenly
from hashsearch.evaluation.tasks import Task
from hashsearch.evaluation.threads import chunks, thread_per_core
from hashsearch.progress import ProgressReport, progress_report

RESAMPLES = 1000  # of the bootstrap
LEVEL = 0.95
SHOWN_QUERIES, SHOWN_HITS = 12, 8
_TIMED = 100  # single queries
_DESCRIBED = 256  # images of a thread at a time


@dataclass(frozen=True)
class Interval:
    """A mean over queries, and its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """All measurements of a method.

    model: the fingerprint of the model that it depends on, if any. date: of the measurement.
    measures: by name. curve: pairs of a number of images retrieved and the share of them that
    has the query's label. encode_ms: milliseconds to describe one image among many. search_ms:
    median milliseconds of single queries. hits: positions in the gallery, for each query that a
    report shows.

    Of codes alone: ball: for each radius from 0 on, precision and recall over all pairs of a
    query and an image within the radius, and the share of queries that have no image within
    it. entropy: the mean entropy of a bit; 1 if every bit is 1 as often as 0. correlation: the
    mean absolute correlation of two bits. changes: by the name of a change, the mean number of
    bits flipped, and how often the original is found first.
    """

    method: str
    title: str
    date: str
    unit: str
    image_bytes: int
    n_bits: int | None
    measures: dict[str, Interval]
    curve: list[tuple[int, float]]
    encode_ms: float
    search_ms: float
    hits: list[list[int]]
    ball: list[tuple[float, float, float]] = field(default_factory=list)
    entropy: float | None = None
    correlation: float | None = None
    changes: dict[str, tuple[float, float]] = field(default_factory=dict)
    model: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Result":
        typed = {
            "measures": {name: Interval(**part) for name, part in raw["measures"].items()},
            "curve": [tuple(point) for point in raw["curve"]],
            "ball": [tuple(point) for point in raw["ball"]],
            "changes": {name: tuple(pair) for name, pair in raw["changes"].items()},
        }
        return cls(**{**raw, **typed})


def measure(
    method: MeasuredMethod, examples: Examples, task: Task, *, ks: list[int], seed: int, date: str
) -> Result:
    """Let a method learn, describe all images, search, and measure what it finds.

    examples: the task's gallery. ks: numbers of images retrieved, ascending, none above the
    gallery's size; mAP@k is measured at the last one.
    """
    with thread_per_core() as pool:
        describe = method.learn(examples)
        ask = method.asks(describe)
        n_images = len(task.gallery) + len(task.queries)
        with progress_report(f"describing {task.name} by {method.label}", n_images) as report:
            started = time.perf_counter()
            gallery = _described(pool, describe, task.gallery.images, report)
            encode_ms = 1000 * (time.perf_counter() - started) / len(gallery)
            queries = _described(pool, ask, task.queries.images, report)
        index = method.comparison.index(gallery)
        shown = queries[evenly(len(queries), SHOWN_QUERIES)]
        hits, _ = index.search(shown, min(SHOWN_HITS, len(index)))
        codes: dict[str, Any] = {}
        if method.n_bits is not None:
            entropy, correlation = _bit_statistics(unpack_bits(gallery, method.n_bits))
            changes = _changes(pool, method, ask, examples, task, gallery)
            codes = {"entropy": entropy, "correlation": correlation, "changes": changes}
        search_ms = _search_ms(index, queries)
        del index  # an index of floats holds a copy of the gallery
        ranked = rank(pool, method, task, gallery, queries, ks)
    return Result(
        method=method.name,
        title=method.title,
        date=date,
        unit=method.comparison.unit,
        image_bytes=method.image_bytes,
        n_bits=method.n_bits,
        measures=intervals(ranked.measures, seed),
        curve=ranked.curve,
        encode_ms=encode_ms,
        search_ms=search_ms,
        hits=hits.tolist(),
        ball=ranked.ball,
        model=method.model.card.fingerprint if method.model else None,
        **codes,
    )


def intervals(measures: dict[str, NDArray[np.float64]], seed: int) -> dict[str, Interval]:
    """Means over queries, with bootstrap intervals: percentiles of the resampled means.

    measures: (n_queries,) each. All measures and all methods share the same resamples.
    """
    values = np.stack(list(measures.values()), axis=1)
    random = np.random.default_rng(seed)
    n = len(values)
    means = np.stack(
        [np.bincount(random.integers(0, n, n), minlength=n) @ values / n for _ in range(RESAMPLES)]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    triples = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Interval(*triple) for name, triple in zip(measures, triples, strict=True)}


def _described(
    pool: ThreadPoolExecutor,
    describe: Describe,
    images: NDArray[np.uint8],
    report: ProgressReport,
) -> NDArray[Any]:
    one = describe(images[:1])
    values = np.empty((len(images), *one.shape[1:]), one.dtype)

    def fill(start: int) -> int:
        part = describe(images[start : start + _DESCRIBED])
        values[start : start + _DESCRIBED] = part
        return len(part)

    for done in pool.map(fill, range(0, len(images), _DESCRIBED)):
        report.advance(done)
    return values


def _search_ms(index: Searchable, queries: NDArray[Any]) -> float:
    """Median milliseconds to find ten images for a single query."""
    seconds = []
    for row in evenly(len(queries), _TIMED):
        started = time.perf_counter()
        index.search(queries[row : row + 1], min(10, len(index)))
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def _bit_statistics(bits: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean entropy of a bit and mean absolute correlation of two, of (n, n_bits) bits."""
    ones = bits.mean(axis=0)
    inside = ones[(ones > 0) & (ones < 1)]
    entropy = -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside)).sum() / len(ones)
    centred = (bits - ones).astype(np.float32)
    deviations = np.sqrt(ones * (1 - ones))
    vary = deviations > 0
    matrix = (centred.T @ centred / len(bits))[vary][:, vary]
    matrix /= np.outer(deviations[vary], deviations[vary])
    others = np.abs(matrix).sum() - np.abs(np.diag(matrix)).sum()
    n = int(vary.sum())
    return abs(float(entropy)), float(others / max(n * (n - 1), 1))


def _changes(
    pool: ThreadPoolExecutor,
    method: MeasuredMethod,
    ask: Describe,
    examples: Examples,
    task: Task,
    gallery: NDArray[np.uint8],
) -> dict[str, tuple[float, float]]:
    rows, changed = examples.changed
    distances_of = method.comparison.distances_to(gallery)

    def found(images: NDArray[np.uint8], originals: NDArray[np.int64]) -> NDArray[np.float64]:
        """(2, n): bits flipped, and the chance that the original is found first."""
        distances = distances_of(ask(images))
        own = np.take_along_axis(distances, originals[:, np.newaxis], axis=1)
        # Of images at the same distance as the original, any may come first.
        as_near = (distances == own).sum(axis=1)
        return np.stack([own[:, 0], np.where((distances < own).any(axis=1), 0, 1 / as_near)])

    changes = {}
    what = f"searching {task.name} for changed images by {method.label}"
    with progress_report(what, len(rows) * len(changed)) as report:
        for name, images in changed.items():
            parts = pool.map(found, chunks(images, len(gallery)), chunks(rows, len(gallery)))
            flipped, first = np.concatenate(list(parts), axis=1).mean(axis=1).tolist()
            changes[name] = flipped, first
            report.advance(len(rows))
    return changes
