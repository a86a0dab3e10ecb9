"""The threads that scan: one for each core, shared by all indexes of the process."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import faiss
import numpy as np

from hashsearch.hardware import usable_cores

T = TypeVar("T")


def in_threads(task: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """The results of a task for each of the arguments, as of `map`, in their order."""
    rows = list(zip(*arguments, strict=True))
    if len(rows) == 1:
        return [_pool().submit(task, *rows[0]).result()]
    return list(_pool().map(lambda row: task(*row), rows))


def slices(size: int, number: int, multiple: int = 1) -> Sequence[tuple[int, int]]:
    """Cut positions from 0 to size - 1 into about equal slices, each a start and an end.

    Every start is a multiple of `multiple`.
    """
    edges = np.linspace(0, size, number + 1).astype(np.int64) // multiple * multiple
    edges[-1] = size
    return [(start, end) for start, end in pairwise(edges.tolist()) if start < end]


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, FAISS uses this thread alone, as waking others takes time."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@cache
def thread_count() -> int:
    """Number of the threads that scan; asked once, since it is read from the system's files."""
    return usable_cores()


@cache
def _pool() -> ThreadPoolExecutor:
    # One OpenMP thread for each of ours; FAISS keeps that number by thread.
    return ThreadPoolExecutor(
        thread_count(), "search", initializer=faiss.omp_set_num_threads, initargs=(1,)
    )


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads
