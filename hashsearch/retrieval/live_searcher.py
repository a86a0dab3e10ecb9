"""Searchers of a gallery that changes: each search sees the gallery as it is when it begins."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread

from hashsearch.errors import HashSearchError
from hashsearch.gallery.built import built_indexes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.retrieval.searcher import Searcher
from hashsearch.retrieval.state import followed, read_state, with_kind

_log = logging.getLogger(__name__)


class LiveSearcher:
    """Gives searchers of a gallery's present state. May be used from several threads.

    What was added and removed is read by the next search. The base, which holds most rows, is
    renewed in a thread of its own when much was added to it, and swapped.
    """

    def __init__(self, gallery: GalleryFolder, known: Searcher | None = None, *, waits: bool):
        """known: an earlier searcher, whose model is kept if it is the gallery's.

        waits: what a search does if all has to be read again, since codes were made again or rows
        deleted: it reads the gallery, or it is answered from the former state meanwhile. In the
        second case, models are loaded before they are searched by, and a gallery that cannot be
        read any more is reported to the log. Raises InvalidGallery or InvalidModel if the gallery
        is damaged.
        """
        self.gallery, self._waits = gallery, waits
        self._current = self._read(known)
        self._lock = Lock()  # one thread follows the changes, others wait for it
        self._renewal: Thread | None = None
        self._failed: int | None = None  # the generation that could not be read

    @property
    def current(self) -> Searcher:
        """The newest searcher, of the present or a former state."""
        return self._current

    @contextmanager
    def searcher(self, index: str | None = None) -> Iterator[Searcher]:
        """A searcher of the present state; what this thread reads within is of that state too.

        index: a kind of index, which is loaded if it was built of the gallery. If `waits` is
        False, all are loaded at first, and one that is built later by another thread.
        Raises InvalidGallery and InvalidModel if the gallery is damaged.
        """
        catalog = self.gallery.catalog
        while True:
            with catalog.snapshot():
                generation, error = catalog.generation(), None
                try:
                    searcher = self._at(generation)
                    if searcher is not None and index is not None:
                        searcher = self._with_index(searcher, index)
                except HashSearchError as found:
                    searcher, error = None, found
                if searcher is not None:
                    yield searcher
                    return
            if error is not None and catalog.generation() == generation:
                if self._waits or not catalog.is_in_place():
                    raise error
                self._fail(generation, error)
            # otherwise a job replaced what was being read

    def _at(self, generation: int) -> Searcher | None:
        """The searcher of a generation, which the catalog shows to this thread.

        None if another thread has read a later one. If `waits` is False, it may be a former one.
        """
        if self._current.generation == generation:
            return self._current
        with self._lock:
            current = self._current
            if current.generation >= generation:
                return current if current.generation == generation else None
            if generation == self._failed:
                return current
            state = followed(self.gallery, current.state)
            if state is None and self._waits:
                self._current = self._read(current)
                return None
            if state is None:
                self._renew()
                return current
            self._current = current.at(state)
            if state.needs_a_new_base(self.gallery.catalog.shard_rows()):
                self._renew()
            return self._current

    def _with_index(self, searcher: Searcher, index: str) -> Searcher | None:
        """The searcher, if it has the index, or if it was not built; None if it was loaded now."""
        built = built_indexes(self.gallery.catalog).get(index)
        if (
            built is None
            or built.fingerprint != searcher.fingerprint
            or searcher.state.built.get(index) == built.time
        ):
            return searcher
        if not self._waits:
            self._renew()
            return searcher
        with self._lock:
            state = with_kind(self.gallery, self._current.state, index)
            if state is None:
                return searcher
            self._current = self._current.at(state)
            return None

    def _read(self, known: Searcher | None) -> Searcher:
        while True:
            state = read_state(self.gallery)
            kinds = set(built_indexes(self.gallery.catalog))
            if self._waits:
                kinds &= known.state.built.keys() if known else set()
            for kind in kinds:
                state = with_kind(self.gallery, state, kind) or state
            searcher = Searcher(self.gallery, state, known)
            try:
                if not self._waits:
                    assert searcher.encoder
            except HashSearchError:
                if self.gallery.fingerprint == searcher.fingerprint:
                    raise  # otherwise the gallery was moved to another model meanwhile
            else:
                return searcher

    def _renew(self) -> None:
        """Read everything in another thread, if none does so already."""
        if self._renewal is None:
            self._renewal = Thread(target=self._renew_now, name="renewal", daemon=True)
            self._renewal.start()

    def _renew_now(self) -> None:
        try:
            searcher = self._read(self._current)
        except Exception as error:  # of any class, if the gallery is closed or replaced meanwhile
            if self.gallery.catalog.is_in_place():
                self._fail(self.gallery.catalog.generation(), error)
        else:
            with self._lock:
                self._current = searcher  # the next search reads what changed since
        finally:
            self._renewal = None

    def _fail(self, generation: int, error: Exception) -> None:
        self._failed = generation
        _log.error(
            "the gallery changed but cannot be read; its former state is served", exc_info=error
        )
