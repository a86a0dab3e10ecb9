"""Worker processes that decode images; one that dies or hangs costs only its image."""

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import current_process, get_context

import numpy as np
from pebble import ProcessExpired, ProcessPool

from hashsearch.errors import InvalidImage, WorkersFailed
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.index.prepare import Prepared, prepare, start_worker
from hashsearch.sources.base import SourceImage

_START_LIMIT_S = 60.0  # for a worker to start
_START_PATIENCE_S = 3.0  # before a pool is stopped whose workers have not started
IMAGE_LIMIT_S = 60.0  # the largest images that are decoded take a few seconds
_CHUNK_LIMIT_S, _PER_IMAGE_S = 120.0, 2.0  # a chunk that takes longer is tried image by image
_LOOK_EVERY_S = 1.0

KILLED = "decoding it killed a process, perhaps for want of memory"
Results = list[Prepared | InvalidImage]
_GUARD = '`if __name__ == "__main__":`'
_LOST = (ProcessExpired, BrokenProcessPool, CancelledError)


def end_if_main_is_imported() -> None:
    """End this process if it is a worker that imports the user's script, and so runs it again.

    The script calls `index` without a main guard. The process ends without a word, since its
    parent, in which no worker starts, raises WorkersFailed.
    """
    if getattr(current_process(), "_inheriting", False):  # as multiprocessing itself asks
        os._exit(1)


@dataclass(frozen=True, slots=True)
class Pending:
    """Images that are being prepared. pool: where, or None if they are done."""

    images: list[SourceImage]
    future: "Future[Results]"
    pool: "_Pool | None"


class Workers:
    """A pool of processes that prepare images. It is used by one thread that submits and one
    that asks for results.

    pebble's pool limits the time of a task and loses no other task with it. But a task whose
    worker dies before it has received it stays without an answer for ever, and all others with
    it; so results are waited for until a limit of our own, and then the pool is replaced.
    """

    def __init__(self, count: int, *, thumbnails: bool = True):
        self.count = count
        self._thumbnails = thumbnails
        self._pool = _Pool(count)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.end()

    def submit(self, images: list[SourceImage]) -> Pending:
        """Prepare images; `result` waits for their outcome.

        Raises WorkersFailed if processes are needed and the script that is running is on stdin.
        """
        if all(_is_tiny(image) for image in images):
            done: Future[Results] = Future()
            done.set_result(prepare(images))  # nothing to decode, so no process is needed
            return Pending(images, done, None)
        if _is_script_on_stdin():
            raise WorkersFailed(
                "worker processes cannot start from a script on stdin; put it into a file, and "
                f"call index() there under {_GUARD}"
            )
        pool = self._pool
        try:
            return Pending(images, self._schedule(pool, images), pool)
        except RuntimeError:  # the pool gave up, and `result` replaces it
            lost: Future[Results] = Future()
            lost.set_exception(BrokenProcessPool())
            return Pending(images, lost, pool)

    def result(self, pending: Pending) -> Results:
        """The outcome of each image; one that kills its worker, or holds it up, fails alone.

        Raises WorkersFailed if no worker can be started.
        """
        while pending.pool not in (None, self._pool) and not pending.future.done():
            pending = self.submit(pending.images)  # its pool was replaced
        ends = time.monotonic() + limit_s(pending.images)
        while True:
            try:
                return pending.future.result(_LOOK_EVERY_S)
            except TimeoutError:
                if not pending.future.done() and time.monotonic() < ends:
                    continue
            except _LOST:
                pass
            break
        if not pending.future.done() or not self._pool.active:
            self._pool.end()
            self._pool = _Pool(self.count)
        return self._one_by_one(pending.images)

    def _one_by_one(self, images: list[SourceImage]) -> Results:
        results: Results = []
        pool = _started_pool()
        try:
            for image in images:
                result: Prepared | InvalidImage | None = None
                for _ in range(2):  # the first time, the machine may have been asleep
                    future = self._schedule(pool, [image])
                    try:
                        (result,) = future.result(IMAGE_LIMIT_S + _LOOK_EVERY_S)
                        break
                    except TimeoutError:
                        reason = took_too_long()
                    except _LOST:
                        reason = KILLED
                    pool.end()
                    pool = _started_pool()
                results.append(result or InvalidImage(reason))
        finally:
            pool.end()
        return results

    def _schedule(self, pool: "_Pool", images: list[SourceImage]) -> "Future[Results]":
        return pool.schedule(prepare, (images, self._thumbnails), timeout=limit_s(images))


class _Pool(ProcessPool):
    """Worker processes, which start while the job itself starts."""

    def __init__(self, count: int):
        context = get_context("spawn")
        self._started, self._count = context.Semaphore(0), count  # each worker releases it
        super().__init__(
            count, initializer=start_worker, initargs=(self._started,), context=context
        )
        self._may_be_starting = not _is_script_on_stdin()
        if self._may_be_starting:
            self.schedule(prepare, ([],))

    def end(self) -> None:
        """Stop; a process that is stopped while it starts may print a traceback, so wait for it."""
        ends = time.monotonic() + _START_PATIENCE_S
        for _ in range(self._count if self._may_be_starting and self.active else 0):
            if not self._started.acquire(timeout=max(0.0, ends - time.monotonic())):
                break
        self.stop()  # type: ignore[no-untyped-call]
        self.join()


def _started_pool() -> "_Pool":
    """A pool of one process, which has answered. Raises WorkersFailed if none can be started."""
    pool = _Pool(1)
    try:
        pool.schedule(prepare, ([],)).result(_START_LIMIT_S)
    except (TimeoutError, RuntimeError, *_LOST) as error:
        pool.end()
        raise WorkersFailed(
            f"worker processes failed to start; in a script, call index() under {_GUARD}"
        ) from error
    return pool


def _is_script_on_stdin() -> bool:
    """Whether a worker would look for the script that is running, and not find it."""
    return getattr(sys.modules["__main__"], "__file__", None) == "<stdin>"


def limit_s(images: Sequence[SourceImage]) -> float:
    """Seconds that preparing a chunk may take, or one image."""
    return IMAGE_LIMIT_S if len(images) == 1 else _CHUNK_LIMIT_S + _PER_IMAGE_S * len(images)


def took_too_long() -> str:
    return f"decoding it takes more than {IMAGE_LIMIT_S:g} seconds"


def _is_tiny(image: SourceImage) -> bool:
    shape = image.content.shape if isinstance(image.content, np.ndarray) else ()
    return shape[:2] == (TINY_SIDE, TINY_SIDE)
