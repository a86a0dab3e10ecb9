"""Threads for each kind of work, each kind with a bounded queue."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from hashsearch.hardware import usable_cores
from service.problems import QueueFull, ServiceStopping
from service.settings import Settings
from service.stages import Stages

T = TypeVar("T")

_WAITING = 16  # threads that wait for the nodes of a cluster
_MOST_IN_MEMORY = 16  # members of archives that are sent at a time


class Lane:
    """Threads for one kind of work. It refuses work rather than let a long queue grow."""

    def __init__(self, name: str, threads: int, most: int):
        """most: the size of the calls that may be at work or wait, together."""
        self.name, self.threads, self.most = name, threads, most
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = Lock()
        self._size = 0

    @property
    def size(self) -> int:
        """The size of the calls that are at work or wait."""
        return self._size

    async def run(self, call: Callable[[], T], stages: Stages, size: int = 1) -> T:
        """Run a call in a thread, and return its result.

        size: what it counts as, such as its number of images. One that is larger than the lane
        is taken if nothing else is there. Raises QueueFull, and ServiceStopping once the lane
        is closed.
        """
        self._enter(size)
        asked = time.perf_counter()

        def run() -> T:
            try:
                stages.add("wait", time.perf_counter() - asked)
                return call()
            finally:
                self._leave(size)

        try:
            future = self._submit(run)
        except ServiceStopping:
            self._leave(size)
            raise
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.cancelled():  # before a thread took it
                self._leave(size)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Count as a call while work is done part by part, by `run_within`. Raises QueueFull."""
        self._enter(1)
        try:
            yield
        finally:
            self._leave(1)

    async def run_within(self, call: Callable[[], T]) -> T:
        """Run a part of what has a place in the lane, and return its result."""
        return await asyncio.wrap_future(self._submit(call))

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        try:
            return self._pool.submit(call)
        except RuntimeError as error:
            raise ServiceStopping("the service is being stopped; try again in a moment") from error

    def _enter(self, size: int) -> None:
        with self._lock:
            if self._size and self._size + size > self.most:
                raise QueueFull("the service is busy; try again in a moment")
            self._size += size

    def _leave(self, size: int) -> None:
        with self._lock:
            self._size -= size

    def close(self) -> None:
        """Wait for the calls at work, and drop the others."""
        self._pool.shutdown(cancel_futures=True)


class Lanes:
    """The service's lanes: slow work does not keep quick work waiting.

    texts: long JSON bodies, which are parsed one at a time: parsing takes several times their
    memory, and holds Python's lock. pictures: what decodes or encodes images. quick: plain searches
    by id and code, and what is read from the gallery. searches: others without images, and lists by
    a filter, which may take a second each. slow: what waits for disks or for other writers. files:
    original files, which wait for disks and then for clients. archives: originals out of archives
    and Parquet files, which are read one at a time, and are held in memory until they are sent.
    """

    def __init__(self, settings: Settings, *, on_cluster: bool = False):
        """on_cluster: whether searches wait for other machines instead of using cores here."""
        cores = usable_cores()
        self.texts = Lane("texts", 1, settings.queue)
        self.pictures = Lane("pictures", 16, settings.queue)
        self.quick = Lane("quick", 16, settings.queue)
        self.searches = Lane("searches", _WAITING if on_cluster else cores, settings.queue)
        self.slow = Lane("slow", cores, settings.queue)
        self.files = Lane("files", cores, 2 * settings.queue)
        self.archives = Lane("archives", 1, min(_MOST_IN_MEMORY, settings.queue))

    def all(self) -> tuple[Lane, ...]:
        return tuple(vars(self).values())

    def close(self) -> None:
        for lane in self.all():
            lane.close()
