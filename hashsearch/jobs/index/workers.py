"""Worker processes that decode images, and are replaced when one of them is killed."""

from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context

import numpy as np

from hashsearch.errors import InvalidImage, WorkersFailed
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.index.prepare import Prepared, prepare, start_worker
from hashsearch.sources.base import SourceImage


class Workers:
    """A pool of processes that prepare images."""

    def __init__(self, count: int, *, thumbnails: bool = True):
        self.count = count
        self._thumbnails = thumbnails
        self._pool = self._new_pool()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit(self, images: list[SourceImage]) -> Future[list[Prepared | InvalidImage]]:
        """Prepare images; `result` turns the future into their outcome."""
        if all(_is_tiny(image) for image in images):
            done: Future[list[Prepared | InvalidImage]] = Future()
            done.set_result(prepare(images))  # nothing to decode, so no process is needed
            return done
        try:
            return self._pool.submit(prepare, images, self._thumbnails)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._new_pool()
            return self._pool.submit(prepare, images, self._thumbnails)

    def result(
        self, images: list[SourceImage], future: Future[list[Prepared | InvalidImage]]
    ) -> list[Prepared | InvalidImage]:
        """The outcome of each image; an image that kills its worker fails alone.

        Raises WorkersFailed if no worker can be started.
        """
        try:
            return future.result()
        except BrokenProcessPool:
            return self._one_by_one(images)

    def _one_by_one(self, images: list[SourceImage]) -> list[Prepared | InvalidImage]:
        """Prepare images in a new process, halving them until one image is to blame."""
        with ProcessPoolExecutor(1, get_context("spawn"), start_worker) as pool:
            try:
                pool.submit(prepare, []).result()
            except BrokenProcessPool as error:
                raise WorkersFailed(
                    "worker processes failed to start; in a script, call index() under "
                    '`if __name__ == "__main__":`'
                ) from error
            with suppress(BrokenProcessPool):
                return pool.submit(prepare, images, self._thumbnails).result()
        if len(images) == 1:
            return [InvalidImage("decoding it killed a process, perhaps for want of memory")]
        middle = len(images) // 2
        return self._one_by_one(images[:middle]) + self._one_by_one(images[middle:])

    def _new_pool(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self.count, get_context("spawn"), start_worker)
        for _ in range(self.count):  # so that they start while the job itself starts
            pool.submit(prepare, [])
        return pool


def _is_tiny(image: SourceImage) -> bool:
    shape = image.content.shape if isinstance(image.content, np.ndarray) else ()
    return shape[:2] == (TINY_SIDE, TINY_SIDE)
