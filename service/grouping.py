"""Groups of duplicates, computed by one background thread."""

import logging
import time
from dataclasses import dataclass
from threading import Lock, Thread

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.progress import reported_to
from hashsearch.retrieval.duplicates import Groups, find_groups
from hashsearch.retrieval.searcher import Searcher
from service.problems import BeingComputed, ListChanged, QueueFull

_log = logging.getLogger(__name__)

_KEPT = 2  # results; each takes 50 bytes for each image that is in a group
_GIVEN_LATE_S = 60.0  # in which a client that waits comes back, also through a slow proxy
_FAILED_S = 30.0  # in which what failed is not tried again
_MOST_WAITING = 8  # radii
_TO_BE_GIVEN_S = 5.0  # in which no other result evicts a new one; clients ask every two seconds


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is computed: the groups of a gallery's present state within a radius."""

    gallery: GalleryFolder
    radius: int


@dataclass(slots=True, eq=False)
class _Result:
    """Computed groups. at: when, by the monotonic clock. is_given: whether a client got them."""

    of: _Wanted
    groups: Groups
    at: float
    is_given: bool = False

    def answers(self, wanted: _Wanted, generation: int) -> bool:
        """Whether they may begin a list.

        Groups of a former state are given once, to a client that waited for them: a gallery that
        is changed all the time would never have any.
        """
        is_new = not self.is_given and time.monotonic() - self.at < _GIVEN_LATE_S
        return self.of == wanted and (self.groups.generation == generation or is_new)

    def is_awaited(self) -> bool:
        """Whether the client that waited for them may still come."""
        return not self.is_given and time.monotonic() - self.at < _TO_BE_GIVEN_S


class Duplicates:
    """Computes the groups that clients ask for, one radius at a time, and keeps the newest.

    Radii wait in order of arrival, and a result has time to be given before it is evicted: clients
    that ask for ever new radii keep others waiting, but not for ever.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._results: list[_Result] = []  # the newest first
        self._computed: _Wanted | None = None  # by the thread at work
        self._waiting: list[_Wanted] = []
        self._failed: dict[_Wanted, tuple[float, Exception]] = {}  # when, by the monotonic clock
        self._thread: Thread | None = None
        self._is_closed = False

    def newest(self, searcher: Searcher, radius: int) -> Groups:
        """The groups within a radius, for a list that begins.

        Raises BeingComputed while they are computed, QueueFull if too many others are, and what
        computing them raised.
        """
        wanted = _Wanted(searcher.gallery, radius)
        with self._lock:
            for result in self._results:
                if result.answers(wanted, searcher.generation):
                    result.is_given = True
                    return result.groups
            at, error = self._failed.get(wanted, (0.0, None))
            if error is not None and time.monotonic() - at < _FAILED_S:
                raise error.with_traceback(None)
            self._compute(wanted)
        raise BeingComputed("the groups are being computed; try again in a moment")

    def kept(self, gallery: GalleryFolder, radius: int, generation: int) -> Groups:
        """The groups of which a client has a page. Raises ListChanged if they are evicted."""
        wanted = _Wanted(gallery, radius)
        with self._lock:
            for result in self._results:
                if result.of == wanted and result.groups.generation == generation:
                    return result.groups
        raise ListChanged("these groups are no longer kept; start again without after")

    def close(self) -> None:
        """Stop computing, which takes about a second at most."""
        with self._lock:
            self._is_closed, thread = True, self._thread
        if thread is not None:
            thread.join()

    def _compute(self, wanted: _Wanted) -> None:
        """Compute groups, now or after others; the caller holds the lock. Raises QueueFull."""
        if self._computed is None:
            if not self._is_closed:
                thread = Thread(target=self._run, args=(wanted,), name="duplicates", daemon=True)
                thread.start()  # raises RuntimeError if the system has no thread left
                self._thread = thread
            self._computed = wanted
        elif wanted not in (self._computed, *self._waiting):
            if len(self._waiting) >= _MOST_WAITING:
                raise QueueFull("groups of other radii are being computed; try again in a moment")
            self._waiting.append(wanted)

    def _run(self, first: _Wanted) -> None:
        wanted: _Wanted | None = first
        while wanted is not None:
            error: Exception | None = None
            groups = None
            try:
                with reported_to(self._go_on):
                    groups = find_groups(wanted.gallery, wanted.radius, threads=1)
            except _Stopped:
                return
            except Exception as found:  # of any class, if the gallery is replaced meanwhile
                error = found
            while groups is not None and not self._is_closed and not self._has_room(wanted):
                time.sleep(0.05)
            with self._lock:
                self._failed.pop(wanted, None)
                if groups is not None:
                    kept = [one for one in self._results if one.of.gallery is wanted.gallery]
                    kept = [one for one in kept if one.of != wanted]
                    kept.sort(key=lambda one: not one.is_awaited())
                    new = _Result(wanted, groups, time.monotonic())
                    self._results = [new, *kept][:_KEPT]
                elif error is not None and wanted.gallery.catalog.is_in_place():
                    _log.error("duplicates cannot be found", exc_info=error)
                    others = [
                        one for one in self._failed.items() if one[0].gallery is wanted.gallery
                    ]
                    self._failed = {**dict(others), wanted: (time.monotonic(), error)}
                self._computed = wanted = self._waiting.pop(0) if self._waiting else None

    def _has_room(self, wanted: _Wanted) -> bool:
        """Whether a result evicts none of another radius that a client had no time to ask for."""
        with self._lock:
            others = [one for one in self._results if one.of != wanted]
            return sum(one.is_awaited() for one in others) < _KEPT

    def _go_on(self, what: str, done: int, total: int | None) -> None:
        if self._is_closed:
            raise _Stopped


class _Stopped(Exception):
    """The service is being stopped."""
