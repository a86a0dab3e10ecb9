"""The engine: holds model, gallery and indexes in memory, and gives requests access to them."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import HashSearchError, InvalidGallery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.hardware import usable_cores
from hashsearch.images import decode
from hashsearch.jobs.index.prepare import Prepared, prepare_one
from hashsearch.retrieval.bases import IN_MEMORY, Bases
from hashsearch.retrieval.live_searcher import LiveSearcher
from hashsearch.retrieval.ranking import Query, queries_of
from hashsearch.retrieval.searcher import Searcher
from service.batching import Batching
from service.context import Context
from service.problems import GalleryLoading, GalleryReplaced, GalleryUnavailable

T = TypeVar("T")

_OPENING_S = 5.0  # that a request waits for another gallery to be opened

_log = logging.getLogger(__name__)


class Engine:
    """An opened gallery. Its methods may be called from many threads at once.

    Every request is answered from the gallery as it is when the request begins; only if all has to
    be read again, requests are answered from the former state meanwhile. If another gallery is at
    the path, it is opened, and a request that was at work begins again with it.
    """

    def __init__(
        self,
        folder: Path,
        on_batch: Callable[[int], None] = lambda images: None,
        bases: Bases = IN_MEMORY,
    ):
        """Open a gallery; `load` reads it. Raises what `GalleryFolder` raises.

        on_batch: called with the number of images of each batch that is encoded. bases: makes the
        base and its indexes.
        """
        self._gallery, self._bases = GalleryFolder(folder), bases
        self._loaded: LiveSearcher | None = None
        self._starting = Lock()  # held for moments
        self._opening: Future[LiveSearcher] | None = None  # of the last gallery that was opened
        # A large picture takes some hundred megabytes while it is decoded.
        self._decoding = BoundedSemaphore(usable_cores())
        self._batching = Batching(on_batch)

    def load(self) -> None:
        """Read codes, indexes and model; requests are refused before. Raises what they raise."""
        from hashsearch.encoder import MANY  # with torch, which takes seconds
        from hashsearch.models.rows import EIGHT

        live = LiveSearcher(self._gallery, waits=False, bases=self._bases)
        # The encoder tries each size of a batch when it is first needed.
        for rows in (*range(1, EIGHT + 1), MANY):
            live.current.encoder.columns(np.zeros((rows, 32, 32, 3), np.uint8))
        self._loaded = live

    @property
    def served(self) -> Searcher | None:
        """The state that was served last; None before the gallery is loaded. Never waits."""
        live = self._loaded
        return None if live is None else live.current

    def close(self) -> None:
        live = self._loaded
        (self._gallery if live is None else live.gallery).close()

    def decode(self, image: bytes, context: Context, crop: Crop = WHOLE) -> NDArray[np.uint8]:
        """The (32, 32, 3) uint8 tiny image of a file's bytes; raises what `images.decode` raises.

        No more images are decoded at a time than there are cores.
        """
        with self.decoding(context):
            return decode(image, crop=crop).tiny

    def prepare(self, image: bytes, thumbnail: bool, context: Context) -> Prepared:
        """A file's bytes, decoded as what a gallery keeps; raises what `images.decode` raises."""
        with self.decoding(context):
            return prepare_one(image, thumbnail)

    @contextmanager
    def decoding(self, context: Context) -> Iterator[None]:
        """Within the block, an image may be decoded: as many at a time as there are cores."""
        with ExitStack() as held:
            with context.stages.measure("wait"):
                held.enter_context(self._decoding)
            with context.stages.measure("decode"):
                yield

    def encode(self, searcher: Searcher, tiny: NDArray[np.uint8], context: Context) -> list[Query]:
        """A query for each of (n, 32, 32, 3) uint8 tiny images. Raises as `columns` does."""
        return queries_of(tiny, self.columns(searcher, tiny, context)) if len(tiny) else []

    def columns(
        self, searcher: Searcher, tiny: NDArray[np.uint8], context: Context
    ) -> dict[str, NDArray[np.uint8]]:
        """What `Encoder.columns` returns of tiny images, encoded with other requests'.

        Raises InvalidQuery if the gallery's pictures were decoded by earlier image rules.
        """
        with context.stages.measure("encode"):
            searcher.require_todays_rules()
            return self._batching.columns(searcher.encoder, tiny)

    def now(self) -> Searcher:
        """The present state, for its model; the catalog may show a later one. Raises as `ask`."""
        return self.ask(lambda searcher: searcher)

    def ask(self, question: Callable[[Searcher], T], index: str | None = None) -> T:
        """Ask the gallery that is at the path; ask again if another one replaced it meanwhile.

        index: a kind of index that the answer needs.
        Raises GalleryUnavailable if there is none or it cannot be read, GalleryLoading before it
        is loaded, and what `question` raises.
        """

        def answer(live: LiveSearcher) -> T:
            with live.searcher(index) as searcher:
                return question(searcher)

        return self._while_in_place(answer)

    def with_gallery(self, call: Callable[[GalleryFolder], T], *, same: bool = False) -> T:
        """Use the gallery that is at the path; again if another one replaced it meanwhile.

        No state of the catalog is held, so that the call may wait, and change the gallery. same:
        raise GalleryReplaced if it is not the gallery that the last request used. Raises
        GalleryUnavailable and GalleryLoading as `ask` does, and what `call` raises.
        """
        former = self._loaded

        def use(live: LiveSearcher) -> T:
            if same and live is not former:
                raise GalleryReplaced(
                    "another gallery is served now, in which ids mean other images; "
                    "nothing was removed"
                )
            return call(live.gallery)

        return self._while_in_place(use)

    def _while_in_place(self, use: Callable[[LiveSearcher], T]) -> T:
        """What `use` returns of the gallery at the path; again if another one replaced it."""
        while True:
            live = self._in_place()
            catalog = live.gallery.catalog
            try:
                result = use(live)
            except Exception as error:  # of any class, if files disappear while they are read
                if catalog.is_in_place():
                    if isinstance(error, InvalidGallery):
                        raise _unavailable(error) from error
                    raise
            else:
                if catalog.is_in_place():
                    return result

    def _in_place(self) -> LiveSearcher:
        """The gallery that is at the path now. Raises GalleryUnavailable and GalleryLoading."""
        live = self._loaded
        if live is None:
            raise GalleryLoading("the gallery is being loaded; try again in a moment")
        if live.gallery.catalog.is_in_place():
            return live
        opening = self._start_opening()
        wait([opening], _OPENING_S)
        if not opening.done():
            raise GalleryLoading("another gallery is being loaded; try again in a moment")
        try:
            return opening.result()
        except (HashSearchError, OSError, sqlite3.Error) as error:
            raise _unavailable(error) from error

    def _start_opening(self) -> "Future[LiveSearcher]":
        """Open the gallery that is at the path now, in a thread of its own, unless one does so."""
        with self._starting:
            former = self._loaded
            assert former is not None
            if self._opening is None or self._opening.done():
                self._opening = Future()
                if former.gallery.catalog.is_in_place():  # it was opened meanwhile
                    self._opening.set_result(former)
                else:
                    Thread(target=self._open, args=(former, self._opening), daemon=True).start()
            return self._opening

    def _open(self, former: LiveSearcher, opening: "Future[LiveSearcher]") -> None:
        try:
            gallery = former.gallery.reopened()
            try:
                live = LiveSearcher(gallery, former.current, waits=False, bases=self._bases)
            except BaseException:
                gallery.close()
                raise
        except BaseException as error:
            opening.set_exception(error)
        else:
            self._loaded = live
            opening.set_result(live)


def _unavailable(error: Exception) -> GalleryUnavailable:
    _log.warning("the gallery cannot be served: %s", error)  # paths are for the log alone
    return GalleryUnavailable("the gallery is gone or cannot be read; the service's log says why")
