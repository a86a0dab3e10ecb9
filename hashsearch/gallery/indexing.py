"""The batch job that fills a gallery: read, decode in workers, encode, write.

Images are taken in the sources' order, whatever the number of workers, and
committed shard by shard. A job that is killed loses what it had not committed;
the same command finds the rest again and ends with the same content.
"""

import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from sqlite3 import Error as SQLiteError
from threading import Event, current_thread, main_thread

import numpy as np

from hashsearch.encoder import Encoder
from hashsearch.errors import HashSearchError, InvalidImage, InvalidSource
from hashsearch.gallery.catalog import Failure, KnownFile, NewImage
from hashsearch.gallery.folder import Gallery
from hashsearch.gallery.prepare import Prepared
from hashsearch.gallery.shards import MAX_ROWS, ShardWriter
from hashsearch.gallery.workers import Workers
from hashsearch.progress import progress_report
from hashsearch.sources.base import Source, SourceImage

COMMIT_EVERY_S = 60.0  # what a killed job loses at most, in time
_CHUNK_IMAGES = 256
_CHUNK_BYTES = 32 * 2**20


@dataclass(slots=True)
class IndexSummary:
    """What a job did: images by what became of them."""

    indexed: int = 0
    duplicates: int = 0  # the same bytes are in the gallery under another uri
    unchanged: int = 0  # in the gallery already
    failed: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)  # other files, by suffix
    seconds: float = 0.0

    def counts(self) -> dict[str, int]:
        return {
            "indexed": self.indexed,
            "duplicates": self.duplicates,
            "unchanged": self.unchanged,
            "failed": self.failed,
        }


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Images to prepare with their uris, and the uris of those that need not be."""

    images: list[SourceImage]
    uris: list[str]
    unchanged: list[str]


def require_images(source: Source) -> None:
    """Raise InvalidSource if a source holds no image at all."""
    if next(iter(source), None) is None:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in source.passed_over.items())
        raise InvalidSource(
            f"{source.root} holds no image files" + (f" (but {kinds})" if kinds else "")
        )


def index_sources(gallery: Gallery, sources: Sequence[Source], *, workers: int) -> IndexSummary:
    """Add every image of the sources that the gallery does not hold yet.

    Raises GalleryBusy if another job is at work. If a source breaks off, or on
    Ctrl-C or SIGTERM (KeyboardInterrupt), what was read by then is committed
    first; on a disk's error the last commit stands.
    """
    summary = IndexSummary()
    started = time.monotonic()
    with gallery.job_lock(), Workers(workers) as pool, _stop_signals() as stop:
        names = [gallery.catalog.source_name(source.root) for source in sources]
        job = gallery.catalog.start_job(names)
        filling = _Filling(gallery, summary)
        state = "failed"
        try:
            _fill(filling, list(zip(names, sources, strict=True)), pool, stop)
            while not stop.is_set() and filling.wants_another_look():
                _fill(filling, list(zip(names, sources, strict=True)), pool, stop)
            state = "stopped" if stop.is_set() else "done"
        finally:
            filling.discard()
            with suppress(SQLiteError):  # on a full disk the first error is the one to tell
                gallery.catalog.update_job(job, summary.counts(), state)
    if stop.is_set():
        raise KeyboardInterrupt
    for source in sources:
        summary.passed_over += source.passed_over
    summary.seconds = time.monotonic() - started
    return summary


@contextmanager
def _stop_signals() -> Iterator[Event]:
    """Turn Ctrl-C and SIGTERM into an event, looked at between chunks and not within a commit.

    A second one interrupts at once, and what was not committed is dropped.
    """
    stop = Event()
    if current_thread() is not main_thread():  # where Python sets no handlers
        yield stop
        return

    def handle(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _fill(
    filling: "_Filling", sources: list[tuple[str, Source]], workers: Workers, stop: Event
) -> None:
    """Go through the sources once, or until told to stop."""
    with progress_report("indexing") as report:
        try:
            chunks = (
                chunk
                for name, source in sources
                for chunk in _chunks(filling.gallery, name, source)
            )
            for chunk, results in _prepared(chunks, workers):
                filling.take(chunk, results)
                failed = f"{filling.summary.failed:,} failed" if filling.summary.failed else ""
                report.advance(len(chunk.images) + len(chunk.unchanged), failed)
                if stop.is_set():
                    break
        except HashSearchError:
            filling.commit()
            raise
    filling.commit()


def _chunks(gallery: Gallery, name: str, source: Source) -> Iterator[_Chunk]:
    """Cut a source into chunks bounded in images and bytes, known files left out.

    If the source breaks off, its error follows the last image that was whole.
    """
    images: list[SourceImage] = []
    size = 0
    broken: InvalidSource | None = None
    try:
        for image in source:
            images.append(image)
            size += image.size
            if len(images) == _CHUNK_IMAGES or size >= _CHUNK_BYTES:
                yield _unknown(gallery, name, images)
                images, size = [], 0
    except InvalidSource as error:
        broken = error
    if images:
        yield _unknown(gallery, name, images)
    if broken is not None:
        raise broken


def _unknown(gallery: Gallery, name: str, images: list[SourceImage]) -> _Chunk:
    uris = [name + image.place for image in images]
    known = gallery.catalog.known_files(uris)
    chunk = _Chunk([], [], [])
    for image, uri in zip(images, uris, strict=True):
        old = known.get(uri)
        if old is not None and (old.size, old.mtime) == (image.size, image.mtime):
            chunk.unchanged.append(uri)
        else:
            chunk.images.append(image)
            chunk.uris.append(uri)
    return chunk


def _prepared(
    chunks: Iterator[_Chunk], workers: Workers
) -> Iterator[tuple[_Chunk, list[Prepared | InvalidImage]]]:
    """Prepare chunks in worker processes, a few of them before they are taken."""
    waiting: deque[tuple[_Chunk, Future[list[Prepared | InvalidImage]]]] = deque()
    broken: InvalidSource | None = None
    try:
        for chunk in chunks:
            waiting.append((chunk, workers.submit(chunk.images)))
            if len(waiting) > 2 * workers.count:
                first, future = waiting.popleft()
                yield first, workers.result(first.images, future)
    except InvalidSource as error:
        broken = error
    for chunk, future in waiting:
        yield chunk, workers.result(chunk.images, future)
    if broken is not None:
        raise broken


class _Filling:
    """The rows of a job that are not committed yet."""

    def __init__(self, gallery: Gallery, summary: IndexSummary):
        self.gallery = gallery
        self.summary = summary
        self._encoder: Encoder = gallery.encoder()
        self._writer: ShardWriter | None = None
        self._failed_before = {failure.uri for failure, _ in gallery.catalog.failures()}
        self._dismissed: set[bytes] = set()  # keys that were duplicates of a stored image
        self._look_again = False
        self._start()

    def _start(self) -> None:
        self._images: list[NewImage] = []
        self._keys: set[bytes] = set()
        self._freed: set[bytes] = set()  # keys whose image is replaced
        self._replaced: list[str] = []
        self._touched: list[tuple[str, int, int]] = []
        self._mended: list[str] = []
        self._failures: list[Failure] = []
        self._since = time.monotonic()

    def take(self, chunk: _Chunk, results: list[Prepared | InvalidImage]) -> None:
        """Sort out duplicates and failures, encode the rest, and write it to the shard."""
        self.summary.unchanged += len(chunk.unchanged)
        self._mended += [uri for uri in chunk.unchanged if uri in self._failed_before]
        known = self.gallery.catalog.known_files(chunk.uris)
        stored = self.gallery.catalog.known_keys(
            [result.key for result in results if isinstance(result, Prepared)]
        )
        fresh: list[tuple[SourceImage, str, Prepared]] = []
        for image, uri, result in zip(chunk.images, chunk.uris, results, strict=True):
            if isinstance(result, InvalidImage):
                self._failures.append(Failure(uri, str(result), image.size, image.mtime))
                self.summary.failed += 1
                continue
            if uri in self._failed_before:
                self._mended.append(uri)
            if self._is_new(image, uri, result.key, stored, known.get(uri)):
                fresh.append((image, uri, result))
        if fresh:
            self._write(fresh)
        full = self._writer is not None and self._writer.rows + _CHUNK_IMAGES > MAX_ROWS
        if full or time.monotonic() - self._since >= COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Make what was taken so far part of the gallery."""
        changes = (self._images, self._replaced, self._touched, self._mended, self._failures)
        if any(changes):
            self.gallery.commit(
                self._writer,
                self._images,
                replaced=self._replaced,
                touched=self._touched,
                mended=self._mended,
                failures=self._failures,
            )
        self._writer = None
        self._start()

    def discard(self) -> None:
        """Drop what was not committed, and count it no more."""
        if self._writer is not None:
            self._writer.discard()
        self.summary.indexed -= len(self._images)
        self.summary.failed -= len(self._failures)

    def wants_another_look(self) -> bool:
        """Whether a file was left out as a duplicate of an image that was then replaced.

        As when two files change places: then the sources are gone through again,
        and what was counted, but for the new images, begins anew.
        """
        again, self._look_again = self._look_again, False
        self._dismissed.clear()
        if again:  # what this look counts, the next one counts again
            self.summary.unchanged = -self.summary.indexed
            self.summary.duplicates = self.summary.failed = 0
        return again

    def _is_new(
        self,
        image: SourceImage,
        uri: str,
        key: bytes,
        stored: set[bytes],
        old: KnownFile | None,
    ) -> bool:
        """Whether the gallery lacks this content; notes what became of it otherwise."""
        if old is not None and old.key == key:
            self._touched.append((uri, image.size, image.mtime))
            self.summary.unchanged += 1
            return False
        if old is not None:
            self._replaced.append(uri)
            self._freed.add(old.key)
            self._look_again |= old.key in self._dismissed
        if key in self._keys or (key in stored and key not in self._freed):
            self.summary.duplicates += 1
            self._dismissed.add(key)
            return False
        self._keys.add(key)
        return True

    def _write(self, fresh: list[tuple[SourceImage, str, Prepared]]) -> None:
        tiny = np.stack([result.tiny for _, _, result in fresh])
        if self._writer is None:
            self._writer = self.gallery.new_shard()
        self._writer.append(
            {"codes": self._encoder.encode(tiny), "pixels": tiny.reshape(len(tiny), -1)},
            [result.thumbnail for _, _, result in fresh],
        )
        self._images += [_new_image(*one) for one in fresh]
        self.summary.indexed += len(fresh)


def _new_image(image: SourceImage, uri: str, result: Prepared) -> NewImage:
    return NewImage(
        key=result.key,
        uri=uri,
        label=image.label,
        width=result.width,
        height=result.height,
        size=image.size,
        mtime=image.mtime,
    )
