"""Groups of duplicates, computed by one background thread and read by pages."""

import logging
import time
from dataclasses import dataclass
from threading import Lock, Thread

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidQuery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.progress import reported_to
from hashsearch.retrieval.duplicates import DuplicateGroup, Groups, described, find_groups
from hashsearch.retrieval.searcher import Searcher
from service.context import Context
from service.cursors import cursor_of, values_of
from service.engine import Engine
from service.problems import BeingComputed, ListChanged, QueueFull
from service.schemas.duplicates import (
    MOST_FILES,
    DuplicateFileAnswer,
    DuplicateGroupAnswer,
    DuplicatesAnswer,
    DuplicatesParameters,
)
from service.validation import InvalidParameter

_log = logging.getLogger(__name__)

_NAME = "duplicates"  # of the list, in its cursors
_KEPT = 2  # results; each takes 50 bytes for each image that is in a group
_GIVEN_LATE_S = 600.0
_FAILED_S = 30.0  # in which what failed is not tried again
_MOST_WAITING = 8  # radii
_TO_BE_GIVEN_S = 5.0  # in which a result is not put out by others; clients ask every two seconds
_MOST_ON_PAGE = 10_000  # files
_MOST_RADIUS = 32  # where the model's card does not say how near pictures lie


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

    Radii wait in order of arrival, and a result has time to be given before it is put out: clients
    that ask for ever new radii keep others waiting, but not for ever.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._lock = Lock()
        self._results: list[_Result] = []  # the newest first
        self._computed: _Wanted | None = None  # by the thread at work
        self._waiting: list[_Wanted] = []
        self._failed: dict[_Wanted, tuple[float, Exception]] = {}  # when, by the monotonic clock
        self._thread: Thread | None = None
        self._is_closed = False

    def page(self, parameters: DuplicatesParameters, context: Context) -> DuplicatesAnswer:
        """Some of the groups, and where the next ones begin.

        Raises BeingComputed while they are computed, QueueFull if others are and wait,
        ListChanged if those that the client was given are gone, InvalidQuery and InvalidParameter.
        """

        def ask(searcher: Searcher) -> DuplicatesAnswer:
            groups, first = self._groups(searcher, parameters)
            return _page(searcher, groups, first, parameters.limit, context)

        return self._engine.ask(ask)

    def close(self) -> None:
        """Stop computing, which takes about a second at most."""
        with self._lock:
            self._is_closed, thread = True, self._thread
        if thread is not None:
            thread.join()

    def _groups(self, searcher: Searcher, parameters: DuplicatesParameters) -> tuple[Groups, int]:
        """The groups that a page is of, and the number of its first group."""
        if parameters.after is not None:
            return self._begun(searcher, parameters.after, parameters.radius)
        wanted = _Wanted(searcher.gallery, _radius(searcher, parameters.radius))
        with self._lock:
            for result in self._results:
                if result.answers(wanted, searcher.generation):
                    result.is_given = True
                    return result.groups, 0
            at, error = self._failed.get(wanted, (0.0, None))
            if error is not None and time.monotonic() - at < _FAILED_S:
                raise error.with_traceback(None)
            self._compute(wanted)
        raise BeingComputed("the groups are being computed; try again in a moment")

    def _begun(self, searcher: Searcher, after: str, radius: int | None) -> tuple[Groups, int]:
        generation, of_radius, first = values_of(after, _NAME, (int, int, int))
        if radius not in (None, of_radius):
            raise InvalidParameter("radius must be that of the previous page", "radius")
        with self._lock:
            for result in self._results:
                groups = result.groups
                if (result.of.gallery, groups.generation, groups.radius) == (
                    searcher.gallery,
                    generation,
                    of_radius,
                ):
                    return groups, int(first)
        raise ListChanged("these groups are no longer kept; start again without after")

    def _compute(self, wanted: _Wanted) -> None:
        """Have it computed, now or next; the lock is held. Raises QueueFull."""
        if self._computed is None:
            self._computed = wanted
            if not self._is_closed:
                self._thread = Thread(
                    target=self._run, args=(wanted,), name="duplicates", daemon=True
                )
                self._thread.start()
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
        """Whether a result puts out none of another radius that a client had no time to ask for."""
        with self._lock:
            others = [one for one in self._results if one.of != wanted]
            return sum(one.is_awaited() for one in others) < _KEPT

    def _go_on(self, what: str, done: int, total: int | None) -> None:
        if self._is_closed:
            raise _Stopped


class _Stopped(Exception):
    """The service is being stopped."""


def _radius(searcher: Searcher, radius: int | None) -> int:
    """The radius that is meant. Raises InvalidQuery if there is no default, InvalidParameter."""
    closeness = searcher.closeness
    if radius is None:
        if closeness is None:
            raise InvalidQuery(
                "the gallery's model does not say how near copies lie; give a radius",
                "radius",
            )
        return closeness.same
    most = _MOST_RADIUS if closeness is None else closeness.near
    if radius > most:
        why = (
            "since the gallery's model does not say how near pictures lie"
            if closeness is None
            else "the largest distance of near pictures"
        )
        raise InvalidParameter(f"radius must be at most {most}, {why}", "radius")
    return radius


def _page(
    searcher: Searcher, groups: Groups, first: int, limit: int, context: Context
) -> DuplicatesAnswer:
    first = min(first, len(groups))
    last = _last(groups, first, limit)
    found = described(searcher.gallery.catalog, groups, range(first, last), MOST_FILES)
    more = last < len(groups)
    return DuplicatesAnswer(
        radius=groups.radius,
        total=len(groups),
        groups=[
            _group(group, groups.file_counts(number), context) for number, group in found.items()
        ],
        next=cursor_of(_NAME, groups.generation, groups.radius, last) if more else None,
        generation=groups.generation,
    )


def _last(groups: Groups, first: int, limit: int) -> int:
    """The number of the group after a page's last."""
    last, files = first, 0
    while last < min(first + limit, len(groups)):
        files += min(int(groups.file_counts(last).sum()), MOST_FILES)
        if files > _MOST_ON_PAGE and last > first:
            break
        last += 1
    return last


def _group(
    group: DuplicateGroup, file_counts: NDArray[np.int64], context: Context
) -> DuplicateGroupAnswer:
    return DuplicateGroupAnswer(
        diameter=group.diameter,
        diameter_is_lower_bound=group.diameter_is_lower_bound,
        images=len(file_counts),
        n_files=int(file_counts.sum()),
        files=[
            DuplicateFileAnswer.model_construct(
                id=file.id,
                uri=file.uri,
                label=file.label,
                width=file.width,
                height=file.height,
                size=file.size,
                distance=file.distance,
                keep=file.keep,
                missing=file.missing,
                thumbnail=context.thumbnail(file.id),
            )
            for file in group.files
        ],
    )
