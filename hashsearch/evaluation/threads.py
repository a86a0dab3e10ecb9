"""A thread for every core, in place of the threads of torch, FAISS and BLAS."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from typing import Any

import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from hashsearch.hardware import usable_cores

_CHUNK_BYTES = 2**25  # of one thread's distances


@contextmanager
def thread_per_core() -> Iterator[ThreadPoolExecutor]:
    """A pool with a thread for every usable core, each of which computes alone.

    Until it is closed, torch, FAISS and BLAS use one thread each, in the pool's threads and in
    the caller's. The threads that they would start wait for each other within every product;
    when other processes keep the cores busy, they wait longer than they compute.
    """
    threads_before = torch.get_num_threads()
    pool = ThreadPoolExecutor(usable_cores(), initializer=_compute_alone)
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads_before)


def _compute_alone() -> None:
    """Set the numbers of threads that OpenMP keeps for each thread that calls it."""
    torch.set_num_threads(1)  # first, as torch sets its own number when a thread first uses it
    threadpool_limits(1)


def chunks(queries: NDArray[Any], n_gallery: int) -> list[NDArray[Any]]:
    """The queries in order, at least one chunk for every thread where there are as many.

    One chunk's distances to n_gallery images, four bytes each, fit _CHUNK_BYTES.
    """
    most = max(1, _CHUNK_BYTES // (4 * n_gallery))
    size = min(most, ceil(len(queries) / usable_cores()))
    return [queries[start : start + size] for start in range(0, len(queries), size)]
