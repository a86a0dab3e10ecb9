"""Searchers of a gallery that changes: each search sees the gallery as it is when it begins."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread

from hashsearch.errors import ClusterError, GalleryBusy, HashSearchError, InvalidQuery
from hashsearch.gallery.built import BuiltIndex, built_index, built_indexes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.retrieval.bases import IN_MEMORY, Bases
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.retrieval.searcher import Searcher
from hashsearch.retrieval.state import State, followed, index_of_base, read_state

_log = logging.getLogger(__name__)
_RECOVERY_S = 30.0  # after which a cluster that could not load the codes is asked again


class LiveSearcher:
    """Gives searchers of a gallery's present state. May be used from several threads.

    What was added and removed is read by the next search. The base, which holds most rows, is
    renewed in a thread of its own when much was added to it, and swapped.
    """

    def __init__(
        self,
        gallery: GalleryFolder,
        known: Searcher | None = None,
        *,
        waits: bool,
        bases: Bases = IN_MEMORY,
    ):
        """known: an earlier searcher, whose model is kept if it is the gallery's.

        waits: what a search does if something large has to be read: the whole gallery, since codes
        were made again or rows deleted, or an index that was built. If True, it reads it. If False,
        another thread reads it, and the search is answered from the former state, or refused with
        GalleryBusy for the index; the model and all built indexes are loaded at once. bases: makes
        the base and its indexes. Raises InvalidGallery or InvalidModel if the gallery is damaged,
        and what `bases` raises.
        """
        self.gallery, self._waits, self._bases = gallery, waits, bases
        self._swapping = Lock()  # held for moments, to follow changes and to swap
        self._reading = Lock()  # held while something large is read
        self._threads: dict[str, Thread] = {}  # that read something large, by what it is
        # What could not be read, by what it is: what it would have been read for, and the error.
        # When that was, too.
        self._failed: dict[str, tuple[object, Exception, float]] = {}
        self._current = self._read(known)
        if not waits:
            self._load_all()

    @property
    def current(self) -> Searcher:
        """The newest searcher, of the present or a former state."""
        return self._current

    @contextmanager
    def searcher(self, index: str | None = None, *, wish: str | None = None) -> Iterator[Searcher]:
        """A searcher of the present state; what this thread reads within is of that state too.

        index: a kind of index that it must have, if it was built of the gallery. wish: a kind that
        another thread is to load for later searches. Raises InvalidGallery and InvalidModel if the
        gallery or the index is damaged, and GalleryBusy if the index is still being loaded.
        """
        catalog = self.gallery.catalog
        failed: int | None = None  # the generation that could not be read
        if index not in (None, DEFAULT_KIND):
            self._require(index)
        elif wish is not None:
            with suppress(HashSearchError):
                if built := self._not_loaded(wish):
                    self._start(wish, built, lambda: self._load(wish))
        while True:
            error = None
            with catalog.snapshot():
                generation = catalog.generation()
                try:
                    searcher = self._current if generation == failed else self._at(generation)
                except HashSearchError as found:
                    searcher, error = None, found
                if searcher is not None:
                    yield searcher
                    return
            if error is None:
                if self._waits:
                    self._read_again(generation)
            elif catalog.generation() == generation:  # otherwise a job replaced what was read
                if self._waits or not catalog.is_in_place():
                    raise error
                self._note_failure("gallery", generation, error)
                failed = generation

    def _at(self, generation: int) -> Searcher | None:
        """The searcher of a generation, which the catalog shows to this thread.

        None if another thread has read a later one, or if all has to be read; but if `waits` is
        False, that of a former state then.
        """
        current = self._current
        if current.generation == generation:
            if "gallery" in self._failed:
                self._renew_if_needed(current.state)
            return current
        with self._swapping:
            current = self._current
            if current.generation >= generation:
                return current if current.generation == generation else None
            state = followed(self.gallery, current.state)
            if state is None:
                if self._waits:
                    return None
                self._start("gallery", generation, self._renew)
                return current
            self._current = current.at(state)
            self._renew_if_needed(state)
            return self._current

    def _renew_if_needed(self, state: State) -> None:
        if self._failure_of("gallery", state.generation) is not None:
            return
        if state.needs_a_new_base(self.gallery.catalog.shard_rows()):
            self._start("gallery", state.generation, self._renew)

    def _read_again(self, generation: int) -> None:
        """Read the whole gallery, if it has to be for this generation."""
        with self._reading:
            if self._current.generation < generation:
                self._renew_with(self._read(self._current))

    def _renew(self) -> None:
        with self._reading:
            self._renew_with(self._read(self._current))

    def _renew_with(self, searcher: Searcher) -> None:
        """Swap in a searcher with a new base, with the indexes that the former one has."""
        state = searcher.state
        for kind in self._current.state.built:
            with suppress(HashSearchError):  # said when it is asked for
                if made := index_of_base(self.gallery, state, kind, self._bases):
                    state = state.having(kind, *made)
        with self._swapping:
            self._current = searcher.at(state)  # the next search reads what changed since

    def _read(self, known: Searcher | None) -> Searcher:
        """A searcher of all that the gallery holds now."""
        while True:
            searcher = Searcher(self.gallery, read_state(self.gallery, self._bases), known)
            try:
                if not self._waits:
                    _ = searcher.encoder  # loads it
            except HashSearchError:
                if self.gallery.fingerprint == searcher.fingerprint:
                    raise  # otherwise the gallery was moved to another model meanwhile
            else:
                return searcher

    def _require(self, index: str) -> None:
        """Load an index if it was built, or built again, and has not been loaded."""
        if index in KINDS and index not in self._bases.kinds:
            served = " and ".join(self._bases.kinds)
            raise InvalidQuery(
                f"the index {index} is not served from a cluster; {served} are", "index"
            )
        built = self._not_loaded(index)
        if built is None:
            if index in self._current.state.built and index not in built_indexes(
                self.gallery.catalog
            ):
                with self._swapping:  # it was dropped
                    self._current = self._current.at(self._current.state.having(index, None, None))
        elif self._waits:
            self._load(index)
        elif (error := self._failure_of(index, built)) is not None:
            raise error
        else:
            self._start(index, built, lambda: self._load(index))
            raise GalleryBusy(f"the index {index} is being loaded; try again in a moment")

    def _not_loaded(self, index: str) -> BuiltIndex | None:
        """The record of an index that can be loaded, and is not, or was built again since."""
        built = built_index(self.gallery.catalog, index)
        state = self._current.state
        if built is None or built.fingerprint != state.fingerprint:
            return None
        return None if built == state.built.get(index) else built

    def _load_all(self) -> None:
        for kind, built in built_indexes(self.gallery.catalog).items():
            if kind == DEFAULT_KIND or kind not in self._bases.kinds:  # the first is always there
                continue
            try:
                self._load(kind)
            except HashSearchError as error:
                self._note_failure(kind, built, error)

    def _load(self, index: str) -> None:
        """Load an index for the base, which another thread may renew meanwhile."""
        with self._reading:
            made = index_of_base(self.gallery, self._current.state, index, self._bases)
            if made is not None:
                with self._swapping:  # the base is renewed by who holds `_reading`
                    state = self._current.state.having(index, *made)
                    self._current = self._current.at(state)

    def _start(self, what: str, cause: object, read: Callable[[], None]) -> None:
        """Read something large in another thread, if none does so; not if it would fail again.

        what: "gallery", or a kind of index. cause: what it is read for, such as a generation.
        """

        def run() -> None:
            try:
                read()
            except Exception as error:  # of any class, if the gallery is closed meanwhile
                if self.gallery.catalog.is_in_place():
                    self._note_failure(what, cause, error)
            else:
                self._failed.pop(what, None)
            finally:
                del self._threads[what]

        if self._failure_of(what, cause) is not None:
            return
        thread = Thread(target=run, name=f"reading {what}", daemon=True)
        if self._threads.setdefault(what, thread) is thread:
            thread.start()

    def _failure_of(self, what: str, cause: object) -> Exception | None:
        """What reading raised, if it would again: of the same state, or of a cluster soon after."""
        former, error, at = self._failed.get(what, (None, None, 0.0))
        if isinstance(error, ClusterError):
            return error if time.monotonic() < at + _RECOVERY_S else None
        return error if former == cause else None

    def _note_failure(self, what: str, cause: object, error: Exception) -> None:
        """Remember that something could not be read, and report it to the log once."""
        is_new = self._failed.get(what, (None,))[0] != cause
        if is_new:
            is_gallery = what == "gallery"
            _log.error(
                "the gallery changed but cannot be read; its former state is served"
                if is_gallery
                else f"the gallery's index {what} cannot be read",
                exc_info=error,
            )
        # Without its traceback, which holds what was read so far.
        self._failed[what] = cause, error.with_traceback(None), time.monotonic()
