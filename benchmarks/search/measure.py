"""How one way to search is measured: its speed, its recall, and what it costs to have."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from hashsearch.hardware import usable_cores
from hashsearch.search.threads import in_threads, slices

K = 10
BATCH = 64
_SECONDS = 2.0  # that single queries are measured for, at most
_FEWEST, _MOST = 5, 200  # single queries
_BATCHES = 5
_READINGS = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table; what was not measured is None.

    size: rows that were searched. by: "hashsearch", or the peer's name. single_ms: median of
    single queries. batch_ms: time of 64 queries at once, divided by 64, the median of five.
    recall: neighbour recall@10 against the exact index. build_s: seconds until the index can be
    searched. row_bytes: memory of a row. note: what else is known. part: of the benchmark.
    """

    size: int
    what: str
    by: str = "hashsearch"
    single_ms: float | None = None
    batch_ms: float | None = None
    recall: float | None = None
    build_s: float | None = None
    row_bytes: float | None = None
    note: str = ""
    part: str = ""

    def costing(self, build_s: float, row_bytes: float) -> "Measured":
        return replace(self, build_s=build_s, row_bytes=row_bytes)


def timed(task: Callable[[], T]) -> tuple[T, float]:
    """A task's result, and its seconds."""
    started = time.perf_counter()
    result = task()
    return result, time.perf_counter() - started


def single_ms(search: Callable[[Any], object], queries: Sequence[Any]) -> float:
    """Median milliseconds of a search for one query, each time another one."""
    for query in queries[:3]:
        search(query)
    taken: list[float] = []
    started = time.perf_counter()
    for query in queries[:_MOST]:
        taken.append(timed(lambda query=query: search(query))[1])
        if len(taken) >= _FEWEST and time.perf_counter() - started > _SECONDS:
            break
    return 1000 * statistics.median(taken)


def batch_ms(search: Callable[[Any], object], queries: NDArray[np.uint8]) -> float:
    """Median milliseconds a query of a search for 64 queries at once."""
    search(queries[:BATCH])
    batches = [
        queries[start : start + BATCH]
        for start in range(BATCH, len(queries) - BATCH + 1, BATCH)[:_BATCHES]
    ]
    return (
        1000 / BATCH * statistics.median(timed(lambda b=batch: search(b))[1] for batch in batches)
    )


def reading_ms(values: NDArray[np.uint8]) -> float:
    """Milliseconds to read an array, a slice for each core: the best of ten sums."""
    words = values.reshape(-1).view(np.uint64)
    parts = slices(len(words), usable_cores())

    def read() -> None:
        in_threads(lambda start, end: words[start:end].sum(), *zip(*parts, strict=True))

    return 1000 * min(timed(read)[1] for _ in range(_READINGS))


def recall(distances: NDArray[np.int32], tenth: NDArray[np.int32]) -> float:
    """Neighbour recall@10: the share of ten neighbours no farther than the true tenth.

    distances: (n_queries, 10) of what was found, NO_DISTANCE for a missing one. tenth:
    (n_queries,), the exact index's tenth distance. Which of several neighbours at the tenth
    distance was found makes no difference.
    """
    return float((distances[:, :K] <= tenth[:, np.newaxis]).mean())


def built(make: Callable[[], T], size: int, kept: int = 0) -> tuple[T, float, float]:
    """Build an index of `size` rows.

    kept: bytes of its arguments that it keeps without a copy. Returns the index, the seconds, and
    the bytes a row by which the process grew, with those kept.
    """
    before = _memory()
    index, seconds = timed(make)
    return index, seconds, (_memory() - before + kept) / size


def _memory() -> int:
    """Bytes of memory of this process, after what is free was given back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)
