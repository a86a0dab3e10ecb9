"""Worker processes that decode images; one that dies or hangs costs only its image."""

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
from pebble import ProcessExpired, ProcessPool

from hashsearch.errors import InvalidImage, WorkersFailed
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.index.prepare import Prepared, prepare, start_worker
from hashsearch.sources.base import SourceImage

_CHUNK_LIMIT_S = 300.0  # 256 images; after it, they are tried one by one
_IMAGE_LIMIT_S = 60.0  # the largest that are decoded take a few seconds

Results = list[Prepared | InvalidImage]


class Workers:
    """A pool of processes that prepare images."""

    def __init__(self, count: int, *, thumbnails: bool = True):
        self.count = count
        self._thumbnails = thumbnails
        context = get_context("spawn")
        self._pool = ProcessPool(count, initializer=start_worker, context=context)
        self._pool.schedule(prepare, ([],))  # so that workers start while the job itself starts

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.stop()
        self._pool.join()

    def submit(self, images: list[SourceImage]) -> "Future[Results]":
        """Prepare images; `result` turns the future into their outcome."""
        if all(_is_tiny(image) for image in images):
            done: Future[Results] = Future()
            done.set_result(prepare(images))  # nothing to decode, so no process is needed
            return done
        return self._schedule(images, _CHUNK_LIMIT_S)

    def result(self, images: list[SourceImage], future: "Future[Results]") -> Results:
        """The outcome of each image; one that kills its worker, or holds it up, fails alone.

        Raises WorkersFailed if no worker can be started.
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise WorkersFailed(
                "worker processes failed to start; in a script, call index() under "
                '`if __name__ == "__main__":`'
            ) from error
        except (ProcessExpired, TimeoutError):
            return [self._alone(image) for image in images]

    def _alone(self, image: SourceImage) -> Prepared | InvalidImage:
        try:
            (result,) = self._schedule([image], _IMAGE_LIMIT_S).result()
        except ProcessExpired:
            return InvalidImage("decoding it killed a process, perhaps for want of memory")
        except TimeoutError:
            return InvalidImage(f"decoding it takes more than {_IMAGE_LIMIT_S:g} seconds")
        return result

    def _schedule(self, images: list[SourceImage], limit_s: float) -> "Future[Results]":
        try:
            return self._pool.schedule(prepare, (images, self._thumbnails), timeout=limit_s)
        except RuntimeError as error:  # the pool gave up, since its workers cannot start
            broken: Future[Results] = Future()
            broken.set_exception(BrokenProcessPool(str(error)))
            return broken


def _is_tiny(image: SourceImage) -> bool:
    shape = image.content.shape if isinstance(image.content, np.ndarray) else ()
    return shape[:2] == (TINY_SIDE, TINY_SIDE)
